// @ts-check
// The plugin for JupyterLab 4 and Notebook 7: the panel "Jobs", and the healing of saved outputs.
//
// It comes from the Jupyter server's extension, and hears from it over one WebSocket about every job of every kernel
// and of the JobManager server. Jupyter's own packages are taken from the page (`shared`), because their tokens are
// found by identity; their types are not here to be checked: what comes from them is `any`.

import * as kit from "./jobview.js";
import { mountJobs } from "./jobs.js";

/** @import { Row } from "./types.d.ts" */
const { ENDED, h, say, set } = kit;
const ID = "sage-nb-jobs";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const VIEWS = ".sage-job, .sage-jobs, .sage-launcher"; // what our widgets draw
const CLEARED = "sage-nb:cleared", CLEARED_MOST = 1000, WISH = "sage-nb:wish", WISH_MS = 60_000;
const LOOK_MS = 1000, AGAIN_MS = 10_000;
const SETTLED_MS = 1500; // within which a kernel's own last word about its job arrives
const LOADED_MS = 4000; // within which a page has found the widgets that there are
const LOOKS = { id: ID, class: "sage-panel", role: "region", "aria-label": "Jobs" };
const ORDERS = new Set(["stop", "pause", "resume"]);
const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16"><path d="M1 2h5v5H1zm1.2 1.2v2.6
 h2.6V3.2zM1 9h5v5H1zm1.2 1.2v2.6h2.6v-2.6zM8 3.9h7v1.2H8zm0 7h7v1.2H8z" class="jp-icon3" fill="#616161"/></svg>`;
const PACKAGES = ["@jupyterlab/apputils", "@jupyterlab/notebook", "@jupyterlab/services", "@jupyterlab/ui-components",
  "@lumino/widgets", "@jupyterlab/application", "@jupyter-notebook/tree"];

/** The plugins. @param {(name: string) => Promise<any>} shared  gives a package that the page shares */
export async function plugins(shared) {
  const [apputils, notebook, services, ui, widgets, application, tree] =
    await Promise.all(PACKAGES.map((name) => shared(name).catch(() => ({})))); // JupyterLab has no page of the tree
  const tokens = [notebook.INotebookTracker, apputils.ICommandPalette, application.ILayoutRestorer, tree.INotebookTree];
  const optional = tokens.filter(Boolean);
  return [{ id: "sage-nb:jobs", description: "Shows the jobs of sage_nb.", autoStart: true, optional, activate }];

  function activate(/** @type {any} */ app, /** @type {any[]} */ ...got) {
    const [tracker, palette, restorer, treePage] = tokens.map((token) => (token ? got[optional.indexOf(token)] : null));
    const hub = connect(services.ServerConnection), panel = new widgets.Widget({ node: h("div", LOOKS) });
    jobsPanel(hub, tracker && openNotebooks(app, tracker, hub, notebook.NotebookActions), panel);
    panel.title.icon = new ui.LabIcon({ name: ID, svgstr: ICON });
    document.head.append(h("link", { rel: "stylesheet", href: new URL("panel.css", import.meta.url).href }));
    if (treePage) {
      panel.title.label = "Jobs";
      treePage.addWidget(panel);
      treePage.tabBar.addTab(panel.title);
    } else app.shell.add(panel, "left", { rank: 600, type: "Jobs" });
    restorer?.add(panel, ID);
    const execute = () => (treePage ? (treePage.currentWidget = panel) : app.shell.activateById(ID));
    app.commands.addCommand("sage-nb:jobs", { label: "Show Jobs", execute });
    palette?.addItem({ command: "sage-nb:jobs", category: "sage_nb" });
  }
}

/** What the server tells: rows and snapshots, over a WebSocket that is made anew where it ends.
 * @param {any} connection */
function connect(connection) {
  const settings = connection.makeSettings();
  const followers = /** @type {Map<string, Set<(snapshot: any) => void>>} */ (new Map());
  let socket = /** @type {WebSocket | null} */ (null), tries = 0, visible = false;
  const send = (/** @type {any} */ said) => socket?.readyState === 1 && socket.send(JSON.stringify(said));
  const hub = {
    rows: /** @type {Row[] | null} */ (null), // null: not known yet
    row: (/** @type {string} */ job) => hub.rows?.find((row) => row.uuid === job),
    told: (/** @type {any} */ _) => {}, // called with a list, and with null where the connection ended
    /** Gives the newest snapshots of a job, and null where nobody knows it, until what is returned is called.
     * @param {string} job @param {(snapshot: any) => void} take */
    follow(job, take) {
      const all = followers.get(job) ?? new Set();
      followers.set(job, all.add(take));
      send({ op: "follow", job });
      return () => {
        if (all.delete(take) && !all.size && followers.delete(job)) send({ op: "unfollow", job });
      };
    },
    look: (/** @type {boolean} */ now) => now !== visible && send({ op: "visible", visible: (visible = now) }),
    /** Asks the server; raises an Error in words. @param {string} method @param {string} path @param {any} [body] */
    async ask(method, path, body = {}) {
      const init = { method, ...(method === "GET" ? {} : { body: JSON.stringify(body) }) };
      const answer = await connection.makeRequest(settings.baseUrl + path, init, settings);
      const said = await answer.json().catch(() => ({}));
      if (answer.ok) return said;
      throw new Error(said.message || `The Jupyter server answered ${answer.status} to ${method} ${path}`);
    },
  };
  function open() {
    const token = settings.appendToken && settings.token ? `?token=${encodeURIComponent(settings.token)}` : "";
    const mine = (socket = /** @type {WebSocket} */ (new settings.WebSocket(`${settings.wsUrl}sage-nb/live${token}`)));
    mine.onopen = () => {
      tries = 0;
      send({ op: "visible", visible });
      for (const job of followers.keys()) send({ op: "follow", job });
    };
    mine.onmessage = ({ data }) => {
      const said = JSON.parse(data);
      if (said.op === "jobs") (hub.rows = said.rows), hub.told(said);
      else followers.get(said.job ?? said.snapshot.uuid)?.forEach((take) => take(said.snapshot ?? null));
    };
    mine.onclose = () => {
      hub.rows = null;
      hub.told(null);
      setTimeout(open, Math.min(1000 * 2 ** tries++, AGAIN_MS));
    };
  }
  open();
  return hub;
}

/** Fills the panel. @param {ReturnType<typeof connect>} hub
 * @param {ReturnType<typeof openNotebooks> | null} notebooks @param {any} panel */
function jobsPanel(hub, notebooks, panel) {
  const views = /** @type {Map<string, () => void>} */ (new Map()); // what closes them
  const note = h("div", { class: "sage-note", role: "alert" }), body = h("div", { class: "sage-body", tabindex: -1 });
  const start = h("button", { type: "button" }, "Start a server"), place = h("span"), count = h("span");
  const clear = h("button", { type: "button", class: "sage-clear", hidden: true }, "Clear ended");
  let cleared = /** @type {string[]} */ ([]), newest = /** @type {any} */ (null);
  try { cleared = Array.from(JSON.parse(localStorage.getItem(CLEARED) ?? "[]"), String); } catch { } // none is known
  const table = mountJobs(body, { kit, onCommand: ({ command, job }) => attempt(() => run(command, job)) });
  panel.node.append(h("header", {}, h("h2", {}, "Jobs"), count, clear), body,
    h("footer", { class: "sage-foot" }, note, h("div", {}, place, start)));

  async function attempt(/** @type {() => Promise<any>} */ act) {
    say(note, "");
    await act().catch((error) => say(note, error.message));
  }
  /** @param {string} command @param {string} job */
  async function run(command, job) {
    const row = hub.row(job);
    if (command === "show") show(job);
    else if (command === "hide") hide(job);
    else if (ORDERS.has(command)) await hub.ask("POST", `sage-nb/jobs/${job}/${command}`);
    else if (row && command === "open") await notebooks?.open(row.path ?? "", { cell: row.cell });
    else if (row) await notebooks?.attach(row);
  }
  function show(/** @type {string} */ job) {
    const slot = table.slot(job);
    if (!slot) return;
    const all = h("button", { type: "button" }, "All log lines"), lines = h("pre", { tabindex: 0, hidden: true });
    all.addEventListener("click", () => attempt(async () => {
      const log = await hub.ask("GET", `sage-nb/jobs/${job}/logs?n=10000`);
      const text = (/** @type {any} */ one) => `${kit.words.clock(one.time)} ${one.level} ${one.source}: ${one.text}`;
      say(lines, log.map(text).join("\n") || "There are none");
      lines.hidden = false;
    }));
    const onCommand = (/** @type {any} */ { command }) => // an order about a known job went by `sageNb`
      ORDERS.has(command) && !hub.row(job) && attempt(() => run(command, job));
    views.set(job, viewOf(hub, job, slot, onCommand));
    slot.append(all, lines);
  }
  function hide(/** @type {string} */ job) {
    views.get(job)?.();
    views.delete(job);
    table.slot(job)?.replaceChildren();
  }
  start.addEventListener("click", () => attempt(() => hub.ask("POST", "sage-nb/server/start")));
  clear.addEventListener("click", () => { // in this browser's panels; elsewhere they are known still
    const ended = newest.rows.flatMap((/** @type {Row} */ row) => (ENDED.has(row.status) ? row.uuid : []));
    cleared = [...new Set([...cleared, ...ended])].slice(-CLEARED_MOST);
    hub.told(newest); body.focus(); // the button is gone
    try { localStorage.setItem(CLEARED, JSON.stringify(cleared)); } catch { } // forgotten with the page
  });
  hub.told = (said) => {
    set(panel.node, { "data-lost": hub.rows === null });
    if (!said) return;
    const { rows, server: { address, state, error, may_start: may = true } } = (newest = said);
    const shown = rows.filter((/** @type {Row} */ row) => !(ENDED.has(row.status) && cleared.includes(row.uuid)));
    table.update(shown);
    set(clear, { hidden: shown.every((/** @type {Row} */ row) => !ENDED.has(row.status)) });
    for (const job of views.keys()) if (!table.slot(job)) hide(job);
    say(place, state === "none" ? "No JobManager server"
      : `JobManager server: ${address}, ${state === "running" ? "running" : "does not answer"}`);
    set(place, { title: error });
    set(start, { hidden: state === "running" || !may });
    const running = rows.filter((/** @type {Row} */ row) => !ENDED.has(row.status)).length;
    say(count, running ? `${running} running` : "");
    panel.title.caption = running ? `Jobs: ${running} running` : "Jobs";
    panel.title.dataset = running ? { "sage-running": String(running) } : {};
  };
  kit.watchSight(panel.node, hub.look);
  const command = (/** @type {string} */ job, /** @type {string} */ it) => hub.row(job) && attempt(() => run(it, job));
  /** @type {any} */ (globalThis).sageNb = { command, follow: hub.follow, row: hub.row };
}

/** Shows a job as the Jupyter server knows it, as long as it is `wanted`; what is returned closes the view.
 * @param {ReturnType<typeof connect>} hub @param {string} job @param {HTMLElement} el
 * @param {(said: any) => void} onCommand */
function viewOf(hub, job, el, onCommand, wanted = () => true) {
  const view = kit.mountJob(el, { onCommand }), close = () => (unfollow(), view.dispose());
  const unfollow = hub.follow(job, (snapshot) => {
    if (!snapshot || !wanted()) return close();
    view.update(snapshot);
    if (ENDED.has(snapshot.status)) unfollow();
  });
  return close;
}

/** Opens notebooks, and heals outputs of jobs in those that are open.
 * @param {any} app @param {any} tracker @param {ReturnType<typeof connect>} hub @param {any} actions */
function openNotebooks(app, tracker, hub, actions) {
  const seen = new WeakMap();

  /** Does what was wished of a notebook, here or in the page that opened it: Notebook 7 has a page for each.
   * @param {any} panel */
  async function fulfil({ revealed, context, content, sessionContext }) {
    await Promise.all([revealed, context.ready]);
    const wish = JSON.parse(localStorage.getItem(WISH) ?? "{}");
    if (wish.path !== context.path || Date.now() - wish.at > WISH_MS) return;
    localStorage.removeItem(WISH);
    const index = content.widgets.findIndex((/** @type {any} */ cell) => cell.model.id === wish.cell);
    if (wish.run) await sessionContext.ready.then(() => actions.runAll(content, sessionContext));
    else if (index < 0) throw new Error("The cell is no longer in its notebook");
    else {
      content.activeCellIndex = index;
      content.deselectAll();
      await content.scrollToItem(index, "center");
    }
  }
  /** @param {string} path @param {{cell?: string | null, run?: boolean}} wish */
  async function open(path, wish) {
    localStorage.setItem(WISH, JSON.stringify({ path, at: Date.now(), ...wish }));
    const panel = tracker.find((/** @type {any} */ one) => one.context.path === path);
    if (!panel) return app.commands.execute("docmanager:open", { path, factory: "Notebook" });
    app.shell.activateById(panel.id);
    return fulfil(panel);
  }
  /** @param {Row} row */
  async function attach(row) {
    const beside = row.path ?? tracker.currentWidget?.context.path ?? "";
    const { path } = await hub.ask("POST", `sage-nb/jobs/${row.uuid}/notebook`, { beside });
    await open(path, { run: true });
  }

  /** Outputs that still ask for a widget although their job has ended get its last state. Those that show nothing get a
   * live view where their job runs, else what they were saved with. Looked at again and again: a reload, a restart, a
   * scroll or a late answer brings them up, and a kernel's own last word comes first. */
  async function heal() {
    if (!hub.rows) return;
    const open = tracker.filter((/** @type {any} */ { context }) => context.isReady && !context.model.readOnly);
    for (const { content, sessionContext } of open) for (const cell of content.widgets) {
      const outputs = cell.model.outputs ?? { length: 0 };
      for (let i = 0; i < outputs.length; i++) {
        const output = outputs.get(i), ours = output.metadata?.sage_nb;
        if (!ours || !output.data?.[WIDGET]) continue;
        const node = cell.node.isConnected && cell.outputArea.widgets[i]?.node;
        const job = ours.job ?? (node && node.querySelector(".sage-job[data-away]")?.dataset.job); // of a form: its own
        const row = job && hub.row(job), runs = row && !ENDED.has(row.status);
        const blank = node && !node.querySelector(VIEWS) && sessionContext.session?.kernel?.status !== "busy";
        if (!blank && (!row || runs)) seen.delete(output);
        else if (!seen.has(output)) seen.set(output, performance.now() + (blank ? LOADED_MS : SETTLED_MS));
        else if (performance.now() > seen.get(output)) {
          if (runs) {
            const el = node.querySelector(".jp-OutputArea-output");
            el.replaceChildren();
            viewOf(hub, job, el, () => {}, () => !cell.isDisposed && cell.outputArea.node.contains(node));
            continue;
          }
          seen.set(output, performance.now() + AGAIN_MS); // where it fails
          // It is empty where nobody knows the job.
          const bundle = job ? await hub.ask("GET", `sage-nb/jobs/${job}/bundle`).catch(() => null) : {};
          if (!bundle || outputs.get(i) !== output || !output.data[WIDGET]) continue;
          const { [WIDGET]: _, ...data } = output.data;
          if (ours.form) for (const type in bundle) bundle[type] = `${data[type]}\n\n${bundle[type]}`;
          outputs.set(i, { ...output.toJSON(), data: { ...data, ...bundle } });
        }
      }
    }
  }
  /** A notebook that is saved gets the newest state of jobs that go on; its page stays as it is. @param {any} panel */
  const keep = ({ content: { widgets } }) => widgets.forEach((/** @type {any} */ { model, outputArea }) =>
    outputArea?.widgets.forEach((/** @type {any} */ { node }, /** @type {number} */ i) => {
      const said = model.outputs.get(i)?.toJSON(), html = node.querySelector(".sage-job")?.sageSaved?.();
      if (!html || !said?.data?.[WIDGET] || !said.metadata.sage_nb?.job) return;
      model.sharedModel.updateOutputs(i, i + 1, [{ ...said, data: { ...said.data, ...html } }], "silent-change");
    }));
  tracker.widgetAdded.connect((/** @type {any} */ _, /** @type {any} */ panel) => {
    panel.context.saveState.connect((/** @type {any} */ _, /** @type {string} */ s) => s === "started" && keep(panel));
    return fulfil(panel);
  });
  const look = () => void heal().finally(() => setTimeout(look, LOOK_MS));
  return look(), { open, attach };
}
