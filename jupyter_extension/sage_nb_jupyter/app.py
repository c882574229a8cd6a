"""The extension itself: its settings, its routes, and its beginning and end with those of the Jupyter server."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Unicode

from sage_nb_jupyter.handlers import handlers
from sage_nb_jupyter.hub import Hub
from sage_nb_jupyter.jobmanager import JobManagerLink
from sage_nb_jupyter.kernels import KernelSocket

__all__ = ["SageNb"]


class SageNb(ExtensionApp):
    """Lists and stops sage_nb's jobs for the pages of this Jupyter server."""

    name = "sage_nb"
    load_other_extensions = True

    address = Unicode(
        "",
        help="HOST:PORT of the JobManager server whose jobs are shown. Empty for the user's own one, which is found by "
        "the file that it leaves in Jupyter's runtime folder: the one on port 19001, or else any.",
    ).tag(config=True)
    token = Unicode(
        "",
        help="The token of that server. Empty for the one from its file on this machine, or from SAGE_NB_TOKEN.",
    ).tag(config=True)
    start_server = Bool(
        True, help="Whether a page may have a JobManager server started on this machine, which outlives this one."
    ).tag(config=True)

    def initialize_settings(self) -> None:
        """Begin to listen for kernels, before any is started; nothing else."""
        app = self.serverapp
        assert app is not None
        link = JobManagerLink(self.address, self.token, may_start=self.start_server, folder=app.root_dir)
        self.hub = Hub(app.kernel_manager, app.session_manager, app.root_dir, link)
        self.kernels = KernelSocket(self.hub, app.runtime_dir, self.log)
        self.settings["sage_nb_hub"] = self.hub
        self.kernels.bind()
        app.io_loop.add_callback(self.kernels.serve)

    def initialize_handlers(self) -> None:
        """The routes under `sage-nb/`."""
        self.handlers.extend(handlers())

    async def stop_extension(self) -> None:
        """Let go of everything."""
        self.kernels.close()
        await self.hub.close()
