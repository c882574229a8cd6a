// @ts-check
// Draws a table of jobs from rows (`JobRow` in `sage_nb/jobs/board.py`) and from nothing else.
//
// The side panel imports the module (`mountJobs`) and gives it `jobview.js` as its `kit`. It is also the `_esm` of
// `%sage_jobs` (default export): that is imported from a Blob and can import no other file, so the text of its kit
// comes with the model. A drawing patches the page: what is focused or expanded stays so. Rows are put in as text.

/** @typedef {typeof import("./jobview.js")} Kit
 * @typedef {{uuid: string, name: string, status: string, where: "kernel" | "server", place: string,
 *   path: string | null, cell: string | null, started: number | null, elapsed: number, items: number, rate: number,
 *   fraction: number | null, services: {name: string, state: string}[], error: string | null}} Row
 * @typedef {"stop" | "open" | "attach" | "show" | "hide"} Command
 * @typedef {{kit: Kit, onCommand: (said: {command: Command, job: string}) => void, theme?: "light" | "dark",
 *   commands?: Command[]}} Options  `commands`: those that are offered; all of them, unless said otherwise */

const ENDED = new Set(["completed", "failed", "stopped"]);
const TICKING = new Set(["starting", "running", "stopping", "restarting"]);
/** @type {[Command, string, string, (row: Row) => boolean][]} */
const BUTTONS = [
  ["open", "Open the cell", "M6.5 3H3v10h10V9.5M9 3h4v4M13 3L7.5 8.5", (row) => Boolean(row.path && row.cell)],
  ["attach", "Attach in a new notebook", "M3.5 2.5h9v11h-9zM8 5.5v5M5.5 8h5", (row) => row.where === "server"],
  ["stop", "Stop", "M4.5 4.5h7v7h-7z", (row) => !ENDED.has(row.status)],
];
const TICK_MS = 250;
const UNANSWERED_MS = 5000, PRESENCE_MS = 5000;
const LESSON = "A job is a pipeline that runs: items come from a source, pass its operators and end in a sink. " +
  "After %load_ext sage_nb, run this in a cell:";
const EXAMPLE = `%%sage_submit squares
numbers = env.from_batch(range(10))
numbers.map(lambda x: x * x).show("squares")`;

/** One job; `slot` is where its full view goes. @param {string} job @param {Options} options */
function rowNode(job, { kit: { each, g, h, icon, say, set, words }, onCommand, commands }) {
  const offered = (/** @type {Command} */ command) => !commands || commands.includes(command);
  const mark = icon("queued"), word = h("span"), bar = h("span"), error = h("div", { class: "sage-error" });
  const title = h("span", { class: "sage-name" }), slot = h("div", { class: "sage-slot", hidden: true });
  const head = h(offered("show") ? "button" : "strong", { class: "sage-head" }, title);
  const facts = ["place", "share", "rate", "elapsed"].map((name) => h("span", { class: `sage-${name}` }));
  const services = h("ul", { class: "sage-chips", "aria-label": "Services" });
  const buttons = BUTTONS.map(([command, label, d, can]) => {
    const path = g("svg", { class: "sage-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, g("path", { d }));
    const node = h("button", { type: "button", title: label, "data-command": command }, path);
    node.addEventListener("click", () => press(command));
    return { node, command, label, can };
  });
  const track = h("div", { class: "sage-bar", role: "progressbar", "aria-label": "Progress" }, bar);
  const state = h("span", { class: "sage-state" }, mark.node, word);
  const tools = h("span", { class: "sage-buttons" }, ...buttons.map((button) => button.node));
  const node = h("li", { class: "sage-row" }, head, tools, h("div", { class: "sage-facts" }, state, ...facts), track,
    services, error, slot);
  if (offered("show")) head.addEventListener("click", () => press(slot.hidden ? "show" : "hide"));
  let row = /** @type {Row | null} */ (null), seenAt = 0, stopped = "";

  /** @param {Command} command */
  function press(command) {
    if (!row || (command === "stop" && (stopped || row.status === "stopping"))) return;
    if (command === "show" || command === "hide") slot.hidden = command === "hide";
    if (command === "stop") {
      stopped = row.status;
      setTimeout(() => row && update(row, true), UNANSWERED_MS);
    }
    update(row);
    onCommand({ command, job });
  }
  function tick() {
    const more = row && TICKING.has(row.status) ? (performance.now() - seenAt) / 1000 : 0;
    say(facts[3], row && row.started !== null ? words.duration(row.elapsed + more) : "");
  }
  /** @param {Row} now @param {boolean} [unanswered] so that it can be pressed again */
  function update(now, unanswered) {
    if (row?.elapsed !== now.elapsed || row.status !== now.status) seenAt = performance.now(); // else it ticks on
    row = now;
    if (stopped !== row.status || unanswered === true) stopped = "";
    const ended = ENDED.has(row.status), known = row.fraction !== null && !ended;
    const status = stopped ? "stopping" : row.status, share = Math.min(row.fraction ?? 0, 1);
    mark.update(status);
    say(word, words.stateWord(status));
    say(title, row.name);
    set(head, { title: row.uuid.slice(0, 8), "aria-expanded": offered("show") && String(!slot.hidden) });
    say(facts[0], row.place);
    say(facts[1], known ? words.percent(share) : "");
    say(facts[2], row.items ? words.rate(row.rate) : "");
    set(facts[0], { title: row.path ?? row.place });
    set(node, { "data-status": status });
    set(track, { hidden: !known && !TICKING.has(status), "data-quiet": !known });
    set(track, { "aria-valuenow": known && Math.floor(share * 100) });
    bar.style.transform = known ? `scaleX(${share})` : "";
    for (const { node: button, command, label, can } of buttons) {
      const off = command === "stop" && status === "stopping";
      set(button, { hidden: !offered(command) || !can(row), "aria-disabled": off && "true" });
      set(button, { "aria-label": `${label}: ${row.name}` });
    }
    each(services, row.services, (one) => one.name, () => {
      const node = h("li");
      const update = (/** @type {Row["services"][0]} */ { name, state }) => {
        say(node, name);
        set(node, { "data-state": state, title: `${name}: ${state}` });
      };
      return { node, update };
    });
    set(services, { hidden: !row.services.length });
    say(error, row.error?.split("\n")[0] ?? "");
    set(error, { hidden: !row.error });
    tick();
  }
  return { node, update, tick, slot, head };
}

/** Shows jobs in `el`, those that run first. `slot` is the element below a job's row, for its full view.
 * @param {HTMLElement} el @param {Options} options */
export function mountJobs(el, options) {
  const { each, h, say, set } = options.kit, rows = new Map(), example = h("pre", { tabindex: 0 }, EXAMPLE);
  const copy = h("button", { type: "button" }, "Copy"), list = h("ul", { "aria-label": "Jobs" });
  const lesson = h("div", { class: "sage-lesson" }, h("strong", {}, "No jobs yet"), h("p", {}, LESSON), example, copy);
  const root = h("section", { class: "sage-jobs", "data-theme": options.theme ?? null }, lesson, list);
  copy.addEventListener("click", () => {
    getSelection()?.selectAllChildren(example);
    say(copy, document.execCommand("copy") ? "Copied" : "Press Ctrl+C"); // `navigator.clipboard` wants https
  });
  el.append(root);
  const timer = setInterval(() => rows.forEach((row) => row.tick()), TICK_MS);
  return {
    /** @param {Row[]} all the newest first */
    update(all) {
      const ended = (/** @type {Row} */ row) => ENDED.has(row.status), focused = document.activeElement;
      const groups = [all.filter((row) => !ended(row)), all.filter(ended)];
      const items = groups.flatMap((group, n) => (group.length ? [["Running", "Ended"][n], ...group] : []));
      each(list, items, (item) => (typeof item === "string" ? item : item.uuid), (item) => {
        if (typeof item === "string") return { node: h("li", { class: "sage-group" }, item), update() {} };
        rows.set(item.uuid, rowNode(item.uuid, options));
        return rows.get(item.uuid);
      });
      for (const job of rows.keys()) if (!all.some((row) => row.uuid === job)) rows.delete(job);
      set(lesson, { hidden: all.length > 0 });
      // A row that moved, and a button that is no longer offered, lose the keyboard's focus: the row keeps it.
      const row = [...rows.values()].find(({ node }) => node.contains(focused));
      if (row && (focused !== document.activeElement || focused?.closest("[hidden]"))) {
        (focused?.closest("[hidden]") ? row.head : /** @type {HTMLElement} */ (focused)).focus({ preventScroll: true });
      }
    },
    slot: (/** @type {string} */ job) => /** @type {HTMLElement | undefined} */ (rows.get(job)?.slot),
    dispose() {
      clearInterval(timer);
      root.remove();
    },
  };
}

/** The widget: commands go to its kernel, and to the page's plugin, which gets through to a kernel that is stuck.
 * @param {{model: {get: (name: string) => any, on: Function, off: Function, send: (content: any) => void},
 *   el: HTMLElement, signal?: AbortSignal}} context */
async function render({ model, el }) {
  const url = URL.createObjectURL(new Blob([model.get("kit")], { type: "text/javascript" })), kit = await import(url);
  URL.revokeObjectURL(url);
  const page = /** @type {any} */ (globalThis).sageNb;
  const commands = /** @type {Command[]} */ (page ? ["open", "attach", "stop"] : ["stop"]);
  const jobs = mountJobs(el, { kit, commands, onCommand({ command, job }) {
    if (command === "stop") model.send({ command, job });
    page?.command(job, command);
  } });
  // Rows come while somebody sees them: a page that is closed the hard way says nothing, so one that is open goes on.
  const id = `table-${Math.random().toString(36).slice(2, 10)}`;
  let inSight = true, saidAt = performance.now();
  const tell = () => {
    saidAt = performance.now();
    model.send({ command: "view", id, visible: inSight && !document.hidden });
  };
  const watch = new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    tell();
  });
  const draw = () => {
    jobs.update(model.get("rows"));
    if (performance.now() - saidAt > PRESENCE_MS) tell();
  };
  model.on("change:rows", draw);
  draw();
  watch.observe(el);
  return () => {
    model.off("change:rows", draw);
    watch.disconnect();
    jobs.dispose();
  };
}

export default { render };
