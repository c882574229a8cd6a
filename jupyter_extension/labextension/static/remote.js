// What JupyterLab and Notebook load. It fetches the plugins from the server's extension, so that there is one copy of
// them, and hands them the packages that the page shares.
(() => {
  const page = JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}");
  const panel = new URL(`${page.baseUrl ?? "/"}sage-nb/static/panel.js`, location.href).href;
  /** @type {Record<string, Record<string, {get: () => Promise<() => unknown>, loaded?: unknown}>>} */
  let scope = {};

  /** The module of a shared package: the version that the page itself has loaded. @param {string} name */
  async function shared(name) {
    const versions = Object.values(scope[name] ?? {});
    const version = versions.find((one) => one.loaded) ?? versions[0];
    if (!version) throw new Error(`sage_nb: this page does not share ${name}`);
    return (await version.get())();
  }

  /** The module that the page asks for, which has to be a plain object. */
  async function extension() {
    const plugins = await import(panel).then((module) => module.plugins(shared)).catch((error) => {
      console.warn("sage_nb: its panel is not shown, as its server extension does not answer:", error);
      return [];
    });
    return () => ({ __esModule: true, default: plugins });
  }

  const all = /** @type {any} */ (window)._JUPYTERLAB ??= {};
  all["sage-nb"] = {
    init: (/** @type {typeof scope} */ given) => void (scope = given),
    get: (/** @type {string} */ module) => (module === "./extension" ? extension() : Promise.reject(module)),
  };
})();
