// @ts-check
// Draws a table of jobs from rows (`JobRow` in `sage_nb/jobs/board.py`) and from nothing else.
//
// The side panel gives `mountJobs` the module `jobview.js` as its `kit`. The default export is the widget of
// `%sage_jobs`: it is imported from a Blob and can import no other file, so the text of the kit comes with its model. A
// drawing patches the page: what is focused or expanded stays so. What a row says is put in as text.

/** @import { Model, Order, Row, TableOptions } from "./types.d.ts" */

const UNANSWERED_MS = 5000;
/** @type {[Order, string, string, (row: Row, ended: boolean) => boolean][]} */
const BUTTONS = [
  ["open", "Open the cell", "M6.5 3H3v10h10V9.5M9 3h4v4M13 3L7.5 8.5", (row) => Boolean(row.path && row.cell)],
  ["attach", "Attach in a new notebook", "M3.5 2.5h9v11h-9zM8 5.5v5M5.5 8h5", (row) => row.where === "server"],
  ["stop", "Stop", "M4.5 4.5h7v7h-7z", (row, ended) => !ended && row.status !== "unknown"],
];
const LESSON = "A job is a pipeline that runs: items come from a source, pass its operators and end in a sink. " +
  "After %load_ext sage_nb, run this in a cell:";
const EXAMPLE = `%%sage_submit squares
numbers = env.from_batch(range(10))
numbers.map(lambda x: x * x).show("squares")`;

/** One job; `slot` is where its full view goes. @param {string} job @param {TableOptions} options */
function rowNode(job, { kit, onCommand, commands }) {
  const { ENDED, TICKING, each, g, h, icon, say, set, words } = kit;
  const offered = (/** @type {Order} */ command) => !commands || commands.includes(command);
  const div = (/** @type {string} */ name, /** @type {Node[]} */ ...inside) => h("div", { class: name }, ...inside);
  const mark = icon("queued"), track = kit.progressBar(), word = h("span"), title = h("span", { class: "sage-name" });
  const error = div("sage-error"), slot = div("sage-slot");
  const head = h(offered("show") ? "button" : "strong", { class: "sage-head" }, title);
  const facts = ["place", "share", "rate", "elapsed", "began"].map((name) => h("span", { class: `sage-${name}` }));
  const services = h("ul", { class: "sage-chips", "aria-label": "Services" });
  const buttons = BUTTONS.map(([command, label, d, can]) => {
    const path = g("svg", { class: "sage-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, g("path", { d }));
    const node = h("button", { type: "button", title: label, "data-command": command }, path);
    node.addEventListener("click", () => press(command));
    return { node, command, label, can };
  });
  const node = h("li", { class: "sage-row" }, head, div("sage-buttons", ...buttons.map((button) => button.node)),
    div("sage-facts", h("span", { class: "sage-state" }, mark.node, word), ...facts), track.node, services, error,
    slot);
  let row = /** @type {Row} */ ({}), seenAt = 0, stopped = "";
  slot.hidden = true;
  if (offered("show")) head.addEventListener("click", () => press(slot.hidden ? "show" : "hide"));

  function press(/** @type {Order} */ command) {
    if (command === "show" || command === "hide") slot.hidden = command === "hide";
    if (command === "stop") {
      if (stopped || row.status === "stopping") return;
      stopped = row.status;
      setTimeout(() => update(row, true), UNANSWERED_MS);
    }
    update(row);
    onCommand({ command, job });
  }
  function tick() {
    const more = TICKING.has(row.status) ? (performance.now() - seenAt) / 1000 : 0;
    say(facts[3], row.started === null ? "" : words.duration(row.elapsed + more));
  }
  function update(/** @type {Row} */ now, unanswered = false) { // `unanswered`: Stop can be pressed again
    if (row.elapsed !== now.elapsed || row.status !== now.status) seenAt = performance.now(); // else it ticks on
    row = now;
    if (stopped !== row.status || unanswered) stopped = "";
    const status = stopped ? "stopping" : row.status, ended = ENDED.has(row.status);
    mark.update(row.reason ? "note" : status);
    say(word, words.stateWord(status, row.reason));
    say(title, row.name);
    say(facts[0], row.place);
    say(facts[1], row.fraction === null || ended ? "" : words.percent(row.fraction));
    say(facts[2], row.items ? words.rate(row.rate) : "");
    tick();
    say(error, row.error?.split("\n")[0] ?? "");
    set(node, { "data-status": status, "data-amiss": Boolean(row.reason) });
    set(head, { title: row.uuid.slice(0, 8), "aria-expanded": offered("show") && String(!slot.hidden) });
    set(facts[0], { title: [row.path, row.place].filter(Boolean).join(": ") });
    say(facts[4], row.started === null ? "" : `at ${words.clock(row.started).slice(0, 5)}`);
    set(facts[4], { title: row.started !== null && `Started ${new Date(row.started * 1000).toLocaleString()}` });
    track.update(status, row.fraction);
    for (const { node: button, command, label, can } of buttons) {
      const off = command === "stop" && status === "stopping";
      set(button, { hidden: !offered(command) || !can(row, ended), "aria-disabled": off && "true" });
      set(button, { "aria-label": `${label}: ${row.name}` });
    }
    each(services, row.services, ({ name }) => name, ({ name }) => {
      const node = h("li", {}, name);
      return { node, update: ({ state }) => set(node, { "data-state": state, title: `${name}: ${state}` }) };
    });
  }
  return { node, update, tick, slot, head };
}

/** Shows jobs in `el`, those that run first, else in the order given. `slot` is where the full view of a job goes.
 * @param {HTMLElement} el @param {TableOptions} options */
export function mountJobs(el, options) {
  const { ENDED, each, h, say, set } = options.kit, rows = new Map(), example = h("pre", { tabindex: 0 }, EXAMPLE);
  const copy = h("button", { type: "button" }, "Copy"), list = h("ul", { "aria-label": "Jobs" });
  const lesson = h("div", { class: "sage-lesson" }, h("strong", {}, "No jobs yet"), h("p", {}, LESSON), example, copy);
  const root = h("section", { class: "sage-jobs", "data-theme": options.theme ?? null }, lesson, list);
  copy.addEventListener("click", () => {
    getSelection()?.selectAllChildren(example);
    say(copy, document.execCommand("copy") ? "Copied" : "Press Ctrl+C"); // `navigator.clipboard` wants https
  });
  el.append(root);
  const timer = setInterval(() => rows.forEach((row) => row.tick()), options.kit.TICK_MS);
  return {
    update(/** @type {Row[]} */ all) {
      const focused = /** @type {HTMLElement | null} */ (document.activeElement);
      const [running, ended] = [false, true].map((is) => all.filter((row) => ENDED.has(row.status) === is));
      const items = [...(running.length ? ["Running", ...running] : []), ...(ended.length ? ["Ended", ...ended] : [])];
      const kept = each(list, items, (item) => (typeof item === "string" ? item : item.uuid), (item) => {
        if (typeof item === "string") return { node: h("li", { class: "sage-group" }, item), update() {} };
        return rows.set(item.uuid, rowNode(item.uuid, options)).get(item.uuid);
      });
      for (const job of rows.keys()) if (!kept.has(job)) rows.delete(job);
      set(lesson, { hidden: all.length > 0 });
      // A row that moved, and a button that is no longer offered, lose the keyboard's focus: the row keeps it.
      const row = [...rows.values()].find(({ node }) => node.contains(focused)), off = focused?.closest("[hidden]");
      if (row && (off || focused !== document.activeElement)) (off ? row.head : focused).focus({ preventScroll: true });
    },
    slot: (/** @type {string} */ job) => /** @type {HTMLElement | undefined} */ (rows.get(job)?.slot),
    dispose: () => (clearInterval(timer), root.remove()),
  };
}

/** The widget: commands go to its kernel, and to the page's plugin, which gets through to a kernel that is stuck.
 * @param {{model: Model, el: HTMLElement}} context */
async function render({ model, el }) {
  const url = URL.createObjectURL(new Blob([model.get("kit")], { type: "text/javascript" })), kit = await import(url);
  const page = /** @type {any} */ (globalThis).sageNb;
  /** @type {TableOptions["onCommand"]} */
  const onCommand = ({ command, job }) => {
    if (command === "stop") kernel.tell({ command, job });
    page?.command(job, command);
  };
  const jobs = mountJobs(el, { kit, commands: page ? ["open", "attach", "stop"] : ["stop"], onCommand });
  // Once the kernel is gone: what the Jupyter server knows, or else that its jobs have ended with it.
  const later = (/** @type {Row} */ row) => page?.row(row.uuid) ?? (kit.ENDED.has(row.status) ? row
    : { ...row, status: row.where === "kernel" ? "stopped" : "unknown", reason: kit.GONE });
  let gone = false;
  const draw = () => jobs.update(gone ? model.get("rows").map(later) : model.get("rows"));
  const kernel = kit.speaker(el, (/** @type {any} */ said) => model.send(said), () => {
    gone = true;
    draw();
  });
  kernel.view();
  model.on("change:rows", draw);
  draw();
  return () => {
    URL.revokeObjectURL(url);
    model.off("change:rows", draw);
    kernel.end();
    jobs.dispose();
  };
}

export default { render };
