// @ts-check
// Draws a job from its snapshot (`sage_nb/jobs/snapshot.py`) and from nothing else.
//
// The module is the notebook widget's `_esm` (default export) and is imported by the side panel (`mountJob`).
// It needs no framework and no build. Snapshots may come faster than they can be drawn: the newest wins, one drawing
// per frame, none while nobody can see it. A drawing patches the page: what the reader selected, opened, scrolled or
// focused stays as it was. What a snapshot says is put in as text, never as markup.

/** @import { BoxPlace, CodeLine, Command, DeadLetters, EdgePlace, File, JobView, Live, Log, Model, Operator,
 *   Part, Result, Service, Snapshot, ViewOptions } from "./types.d.ts" */

// ------------------------------------------------------------------ words, by the rules of `words.py`

export const ENDED = new Set(["completed", "failed", "stopped"]);
export const TICKING = new Set(["starting", "running", "stopping", "restarting"]);
const SINKS = new Set(["sink", "print", "collect", "show"]);
const MARKS = /** @type {Record<string, string>} */ ({ completed: "✓", failed: "✗", stopped: "■" });
const BACKENDS = /** @type {Record<string, string>} */ ({ threads: "", processes: "in processes", ray: "on Ray" });

export const words = {
  /** @param {string} status @param {string | null} [reason] */
  stateWord: (status, reason) => (status === "created" ? "Not started" : status[0].toUpperCase() + status.slice(1)) +
    (reason ? `: ${reason}` : ""),
  /** @param {Snapshot} s */
  at: (s) => (s.server ? `on ${s.server}` : ""),
  /** @param {number} n */
  count: (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ","),
  /** @param {number} n @param {string} noun */
  namedCount: (n, noun) => `${words.count(n)} ${noun}${n === 1 ? "" : "s"}`,
  /** @param {number} total @param {number} shown @param {string} noun */
  showing: (total, shown, noun) =>
    words.namedCount(total, noun) + (shown >= total ? "" : `, showing the last ${words.count(shown)}`),
  /** @param {number} n */
  shortened: (n) => figures(n, ["", " k", " M", " G"]) ?? `${words.count(Math.floor(n / 1e12 + 0.5))} T`,
  /** @param {number} perSecond */
  rate: (perSecond) => (perSecond > 0 && perSecond < 0.05 ? "< 0.1/s" : `${words.shortened(perSecond)}/s`),
  /** @param {number} fraction */
  percent: (fraction) => `${Math.floor(Math.min(Math.max(fraction, 0), 1) * 100)} %`,
  /** @param {number} seconds */
  duration(seconds) {
    const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
    const ms = Math.floor(Math.max(seconds, 0) * 1000 + 0.5), whole = Math.floor(seconds);
    if (seconds < 0.0995) return ms ? `${ms} ms` : "0 s";
    if (seconds < 9.95) return `${(Math.floor(seconds * 10 + 0.5) / 10).toFixed(1)} s`;
    if (whole < 60) return `${Math.max(whole, 10)} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
  },
  /** @param {number} seconds */
  shortTime: (seconds) =>
    figures(Math.max(seconds, 0) * 1e9, [" ns", " µs", " ms"]) ?? words.duration(Math.max(seconds, 1)),
  /** @param {number} eta */
  endsIn(eta) {
    const whole = Math.ceil(eta);
    if (whole < 1) return "almost done";
    return `about ${whole < 60 ? `${whole} s` : words.duration(whole)} left`;
  },
  /** @param {number} epoch */
  clock: (epoch) => new Date(epoch * 1000).toTimeString().slice(0, 8),
  /** @param {Operator} op */
  flow(op) {
    if (op.kind === "source") return words.count(op.items_out);
    if (SINKS.has(op.kind) || op.items_in === op.items_out) return words.count(op.items_in);
    const say = Math.max(op.items_in, op.items_out) >= 1_000_000 ? words.shortened : words.count;
    return `${say(op.items_in)} → ${say(op.items_out)}`;
  },
  /** @param {Operator} op */
  kind: (op) => op.kind.replaceAll("_", " "),
  /** @param {Operator} op */
  instances(op) {
    const one = op.parallelism === 1, many = words.count(op.parallelism);
    if (op.executor === "process") return one ? "in a process" : `${many} in processes`;
    if (op.executor === "actor") return one ? "an actor" : `${many} actors`;
    return op.parallelism > 1 ? many : "";
  },
  /** The table of operators; a column with nothing to say of any is left out. @param {Operator[]} operators */
  columns(operators) {
    const said = COLUMNS.map(([head, numeric, say]) => ({ head, numeric, cells: operators.map(say) }));
    return said.filter(({ head, cells }) => ALWAYS.has(head) || cells.some(Boolean));
  },
  /** Dead letters in the form of a result. @param {DeadLetters} letters @returns {Result} */
  deadLetters: (letters) => ({
    name: `Dead letters of ${letters.operator}`, kind: "show", total: letters.total, columns: ["item", "error"],
    types: ["text", "text"], rows: letters.rows, shape: null, picture: null, kept: null,
  }),
  /** How much of a result is shown. @param {Result} result @param {number} shown */
  extent(result, shown) {
    const all = words.namedCount(result.total, "item"), newest = all + (result.total === 1 ? ", " : ", the newest ");
    if (result.picture !== null) return `${newest}a picture`;
    if (result.shape) return newest + result.shape.map((n, i) => words.namedCount(n, ["row", "column"][i])).join(" × ");
    if (!result.kept) return words.showing(result.total, shown, "item");
    const some = shown < result.kept ? `, showing ${words.count(shown)}` : "";
    return `${all}, keeping the last ${words.count(result.kept)}${some}`;
  },
  /** What the curve of rates shows, for who cannot see it. @param {Snapshot} s */
  trend: (s) => `Rate over time: ${words.rate(s.rate)} ${ENDED.has(s.status) ? "on average" : "now"}, ` +
    `${words.rate(Math.max(...s.rates))} at most`,
  /** That a job has ended, for a notice. @param {Snapshot} s */
  notice: (s) => ({
    title: `${MARKS[s.status]} ${words.plain(s.name)}`,
    body: `${words.stateWord(s.status)} after ${words.duration(s.elapsed)}` +
      (s.error ? `\n${s.error.type}: ${s.error.message.split("\n")[0]}` : ""),
  }),
  /** @param {Snapshot} s @param {number} elapsed */
  facts(s, elapsed = s.elapsed) {
    const known = s.total !== null && s.total !== s.items;
    const items = (known ? `${words.count(s.items)} of ` : "") + words.namedCount(s.total ?? s.items, "item");
    const speed = words.rate(s.rate) + (ENDED.has(s.status) ? " on average" : "");
    const attempt = s.attempt > 1 ? `attempt ${words.count(s.attempt)}` : "";
    return [words.duration(elapsed), items, s.items ? speed : "", BACKENDS[s.backend] ?? s.backend, attempt];
  },
  /** @param {string} text */
  plain: (text) =>
    text.replace(/\s/g, " ").replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")
      .replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, "\ufffd"),
};

/** `n` in two or three figures and the first unit in which it has so few; each unit is 1,000 of the one before.
 * @param {number} n @param {string[]} units */
function figures(n, units) {
  for (const unit of units) {
    if (n < 9.95) return `${Math.floor(n * 10 + 0.5) / 10}${unit}`;
    if (n < 999.5) return `${Math.floor(n + 0.5)}${unit}`;
    n /= 1000;
  }
  return null;
}

const ALWAYS = new Set(["Operator", "Kind", "In", "Out", "Rate"]), COUNTS = new Set(["Waiting", "Errors", "Late"]);
/** @type {[string, boolean, (op: Operator) => string][]} */
const COLUMNS = [
  ["Operator", false, (op) => op.name],
  ["Kind", false, words.kind],
  ["In", true, (op) => (op.kind === "source" ? "–" : words.count(op.items_in))],
  ["Out", true, (op) => (SINKS.has(op.kind) ? "–" : words.count(op.items_out))],
  ["Rate", true, (op) => words.rate(op.rate)],
  ["Busy", true, (op) => (op.busy === null ? "" : words.percent(op.busy))],
  ["Waiting", true, (op) => (op.queued ? words.count(op.queued) : "")],
  ["Blocked", true, (op) => (op.blocked !== null && op.blocked >= 0.01 ? words.percent(op.blocked) : "")],
  ["p50", true, (op) => (op.p50 === null ? "" : words.shortTime(op.p50))],
  ["p99", true, (op) => (op.p99 === null ? "" : words.shortTime(op.p99))],
  ["Errors", true, (op) => (op.errors ? words.count(op.errors) : "")],
  ["Late", true, (op) => (op.late ? words.count(op.late) : "")],
  ["Instances", false, words.instances],
  ["Declared in", false, (op) => op.where ?? ""],
];

// ------------------------------------------------------------------ tables

const BY_NAME = new Intl.Collator(undefined, { numeric: true });

/** What a cell is sorted by: a number where the type says so. @param {string} text @param {string} type */
export function sortKey(text, type) {
  const [, days, hours, minutes, rest] = text.match(/^(?:(-?\d+) days?,? ?)?(?:(\d+):(\d+):([\d.]+))?$/) ?? [];
  const seconds = ((Number(days ?? 0) * 24 + Number(hours ?? 0)) * 60 + Number(minutes ?? 0)) * 60 + Number(rest ?? 0);
  const key = !text ? NaN : type === "number" ? Number(text.replaceAll(",", "").replace(/inf$/i, "Infinity"))
    : type === "time" ? Date.parse(text.replace(" ", "T")) : type === "duration" && (days ?? hours) ? seconds : NaN;
  return Number.isNaN(key) ? text : key;
}

/** The order of rows by one column; what is none of its type comes behind the rest, and empty cells last, either way.
 * @param {string[][]} rows @param {number} column @param {string} type @param {boolean} down @returns {number[]} */
export function order(rows, column, type, down) {
  const keys = rows.map((row) => sortKey(row[column] ?? "", type));
  const group = (/** @type {string | number} */ key) => (key === "" ? 2 : typeof key === "string" ? 1 : 0);
  return [...rows.keys()].sort((i, j) => {
    const a = keys[i], b = keys[j];
    const apart = typeof a === "number" && typeof b === "number" && a !== b ? (a < b ? -1 : 1)
      : BY_NAME.compare(rows[i][column] ?? "", rows[j][column] ?? "");
    return group(a) - group(b) || (down ? -apart : apart) || i - j;
  });
}

/** Whether a cell of the row has the words. @param {string[]} row @param {string} words */
export const matches = (row, words) => row.some((cell) => cell.toLowerCase().includes(words.trim().toLowerCase()));

// ------------------------------------------------------------------ layout, by the rules of `picture.py`

const SPARK_WIDTH = 96, SPARK_HEIGHT = 18, WIDTH = 148, SMALLEST = 0.72;
const PROCESS = "M2.5,2.5h5v5h-5zM3.5,.5v2M6.5,.5v2M3.5,7.5v2M6.5,7.5v2M.5,3.5h2M.5,6.5h2M7.5,3.5h2M7.5,6.5h2";

/** What everything in the picture of a job says, and where it lies. @param {Snapshot} s */
export function layout({ drawing: { width, height, boxes, edges }, ...s }) {
  const known = new Map(s.operators.map((op) => [op.id, op]));
  const of = (/** @type {number} */ id) => /** @type {Operator} */ (known.get(id));
  const most = new Map(), active = !ENDED.has(s.status);
  for (const { start, end } of edges) most.set(start, Math.max(most.get(start) ?? 1, of(end).queued));
  // An edge holds back its start where the most items wait on it.
  const slow = edges.map(({ start, end }) =>
    active && (of(start).blocked ?? 0) >= 0.1 && of(end).queued * 2 >= most.get(start));
  const waitedFor = new Set(edges.filter((_, n) => slow[n]).map(({ end }) => end));
  return {
    width, height,
    boxes: boxes.map((place) => boxOf(place, of(place.id), waitedFor.has(place.id), s)),
    edges: edges.map((place, n) => ({ ...place, slow: slow[n] })),
  };
}

/** @param {BoxPlace} place @param {Operator} op @param {boolean} slow @param {Omit<Snapshot, "drawing">} s */
function boxOf(place, op, slow, s) {
  const wide = place.right - place.left, active = !ENDED.has(s.status);
  const failed = s.error !== null && s.error.operator === op.name;
  const badge = op.errors ? `${words.shortened(op.errors)} error${op.errors === 1 ? "" : "s"}` : failed ? "failed" : "";
  const busy = active && op.busy !== null ? Math.floor(op.busy * wide) : null;
  return {
    ...place, badge, busy, failed, slow,
    flow: words.flow(op),
    rate: active && op.rate ? words.rate(op.rate) : "",
    blocked: active ? Math.min(Math.floor((op.blocked ?? 0) * wide), wide - (busy ?? 0)) : 0,
    waiting: active && op.queued ? waitingOf(op.queued, badge) : "",
  };
}

/** How many items wait; only the number where the other badge needs the room.
 * @param {number} queued @param {string} badge */
function waitingOf(queued, badge) {
  const said = `${words.shortened(queued)} waiting`;
  return !badge || 6 * said.length <= WIDTH - 14 - badgeWidth(badge) ? said : said.slice(0, -" waiting".length);
}

const badgeWidth = (/** @type {string} */ badge) => 7 * badge.length + 12;

/** The curve of rates as a path; empty where two points are missing. @param {number[]} rates */
export function sparkPath(rates) {
  const most = Math.max(...rates);
  if (rates.length < 2 || !(most > 0)) return "";
  const x = (/** @type {number} */ i) => Math.floor((i * SPARK_WIDTH) / (rates.length - 1));
  const y = (/** @type {number} */ rate) => SPARK_HEIGHT - 1 - Math.floor((rate / most) * (SPARK_HEIGHT - 2));
  return `M${rates.map((rate, i) => `${x(i)},${y(rate)}`).join("L")}`;
}

/** The picture in one sentence, for those who do not see it. @param {Snapshot} s */
export function pictureAlt(s) {
  const said = s.operators.map((op) => {
    const kind = [words.kind(op), op.parallelism > 1 && "×", words.instances(op)].filter(Boolean).join(" ");
    const waiting = op.queued && !ENDED.has(s.status) && `${words.count(op.queued)} waiting`;
    return `${words.plain(op.name)} (${[kind, words.flow(op), waiting].filter(Boolean).join(", ")})`;
  }).join(", ");
  return `Pipeline of ${words.namedCount(s.operators.length, "operator")}: ${said}`;
}

// ------------------------------------------------------------------ page

export const GONE = "its kernel is gone";
const PRESENCE_MS = 5000, ANSWER_MS = 4000, SILENCE_MS = 5000;
/** The page's plugin (`panel.js`), where there is one: it knows jobs by way of the Jupyter server. */
const page = () => /** @type {any} */ (globalThis).sageNb;

/** @typedef {Record<string, string | number | boolean | null>} Attrs */

/** Makes an HTML element. @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Attrs} [attrs] @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[T]} */
export function h(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  set(node, attrs);
  node.append(...children);
  return node;
}

/** Makes an SVG element. @template {keyof SVGElementTagNameMap} T
 * @param {T} tag @param {Attrs} [attrs] @param {Node[]} children @returns {SVGElementTagNameMap[T]} */
export function g(tag, attrs = {}, ...children) {
  const node = /** @type {SVGElementTagNameMap[T]} */ (document.createElementNS("http://www.w3.org/2000/svg", tag));
  set(node, attrs);
  node.append(...children);
  return node;
}

/** Sets attributes where they differ; `false` and null take one away. @param {Element} node @param {Attrs} attrs */
export function set(node, attrs) {
  for (const [name, value] of Object.entries(attrs)) {
    const text = value === true ? "" : String(value);
    if (value === false || value === null) node.removeAttribute(name);
    else if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Sets the text where it differs, so that a selection in it survives. @param {Element} node @param {string} text */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @type {WeakMap<Element, Map<any, {node: Element, update: (item: any) => void}>>} */
const KEPT = new WeakMap();

/** Makes the children of `parent` those of `items`, in order; a child stays the same node as long as its key does.
 * @template T @template {{node: Element, update: (item: T) => void}} Child @param {Element} parent @param {T[]} items
 * @param {(item: T, index: number) => string | number} keyOf @param {(item: T, index: number) => Child} make
 * @returns {Map<string | number, Child>} */
export function each(parent, items, keyOf, make) {
  const before = KEPT.get(parent) ?? new Map(), after = new Map(), keys = items.map(keyOf);
  for (const [i, key] of keys.entries()) after.set(key, before.get(key) ?? make(items[i], i));
  for (const [key, child] of before) if (!after.has(key)) child.node.remove();
  let at = parent.firstElementChild;
  for (const [i, key] of keys.entries()) {
    const child = after.get(key);
    if (child.node === at) at = child.node.nextElementSibling;
    else parent.insertBefore(child.node, at);
    child.update(items[i]);
  }
  KEPT.set(parent, after);
  return after;
}

/** Calls `look` with whether the reader can see `el`, at first and when that may have changed, until what it returns is
 * called. @param {Element} el @param {(visible: boolean) => void} look */
export function watchSight(el, look) {
  let inSight = true;
  const tell = () => look(inSight && document.visibilityState === "visible");
  const observer = new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    tell();
  }, { rootMargin: "200px" });
  observer.observe(el);
  document.addEventListener("visibilitychange", tell);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
  };
}

/** How a view speaks to its kernel. Now and then it says that it is in sight: a page that is closed the hard way says
 * nothing. @param {Element} el @param {(said: any) => void} send  raises where the kernel is gone
 * @param {() => void} lose  called then @param {(visible: boolean) => void} [look]  called when the sight changes */
export function speaker(el, send, lose, look = () => {}) {
  const id = `view-${Math.random().toString(36).slice(2, 10)}`;
  let visible = true;
  function tell(/** @type {any} */ said) {
    try { send(said); } catch { lose(); }
  }
  const view = (/** @type {any} */ said = { visible }) => tell({ command: "view", id, ...said });
  const unwatch = watchSight(el, (now) => {
    if (now === visible) return;
    visible = now;
    view();
    look(now);
  });
  const timer = setInterval(() => visible && view(), PRESENCE_MS);
  return { tell, view, end: () => (clearInterval(timer), unwatch()) };
}

/** Applies `change`; a box that was scrolled to its end stays at its end.
 * @param {Element} box @param {() => void} change */
function following(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 4;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

const ICONS = /** @type {Record<string, string>} */ ({
  queued: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5v3l2 1.5",
  starting: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5",
  running: "M5.5 4v8l6-4z",
  paused: "M5.5 4v8M10.5 4v8",
  completed: "M3.5 8.5l3 3 6-7",
  failed: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  stopped: "M4.5 4.5h7v7h-7z",
  note: "M8 2.2l6.3 11.3H1.7zM8 6.5v3M8 11.4v.1",
});
const ICON_OF = /** @type {Record<string, string>} */ ({
  created: "queued", waiting: "queued", stopping: "starting", restarting: "starting", hung: "note", kept: "paused",
});

/** An icon for a state; `data-icon` lets the style sheet fill or turn it. @param {string} state */
export function icon(state) {
  const path = g("path");
  const node = g("svg", { class: "sage-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
  const update = (/** @type {string} */ to) => {
    const name = ICON_OF[to] ?? to;
    set(node, { "data-icon": name });
    set(path, { d: ICONS[name] ?? ICONS.queued });
  };
  update(state);
  return { node, update };
}

/** How far a job is; the bar glides while that is not known. */
export function progressBar() {
  const fill = h("span"), node = h("div", { class: "sage-bar", role: "progressbar", "aria-label": "Progress" }, fill);
  const update = (/** @type {string} */ status, /** @type {number | null} */ fraction) => {
    const known = fraction !== null && !ENDED.has(status), share = Math.min(fraction ?? 0, 1);
    set(node, { hidden: ENDED.has(status), "data-quiet": !known && TICKING.has(status) });
    set(node, { "aria-valuenow": known && Math.floor(share * 100) });
    fill.style.transform = known ? `scaleX(${share})` : "";
  };
  return { node, update };
}

// ------------------------------------------------------------------ parts

/** Name, state, buttons. @param {(command: "stop" | "pause" | "resume") => void} press @returns {Part} */
function headerPart(press) {
  const state = icon("queued"), word = h("span"), name = h("span", { class: "sage-name" });
  const at = h("span", { class: "sage-at" });
  const id = h("code", { class: "sage-id", title: "The job's id: this much of it is enough to name the job" });
  const pause = button(() => press(turn)), stop = button(() => press("stop"));
  let turn = /** @type {"pause" | "resume"} */ ("pause");
  const node = h("header", { class: "sage-header" },
    h("span", { class: "sage-state" }, state.node, word), h("span", { class: "sage-title" }, name, at, id),
    h("span", { class: "sage-buttons" }, pause.node, stop.node));
  return {
    node,
    update(s, live) {
      const ended = ENDED.has(s.status), stopping = s.status === "stopping" || live.pending === "stop";
      const off = stopping || live.lost;
      const shown = stopping && !ended ? "stopping" : s.status;
      state.update(s.reason ? "note" : shown);
      say(word, words.stateWord(shown, s.reason));
      say(name, s.name);
      set(name, { title: s.name });
      say(at, words.at(s));
      say(id, s.uuid.slice(0, 8));
      turn = s.status === "paused" ? "resume" : "pause";
      const turning = live.pending === "pause" || live.pending === "resume";
      const [label, later, mark] = turn === "pause" ? ["Pause", "Pausing…", "paused"]
        : ["Resume", "Resuming…", "running"];
      pause.update(turning ? later : label, mark, turning || off || !["running", "paused"].includes(s.status));
      stop.update(stopping ? "Stopping…" : "Stop", "stopped", off);
      set(pause.node.parentElement ?? node, { hidden: ended });
    },
  };
}

function button(/** @type {() => void} */ act) {
  const mark = icon("queued"), label = h("span");
  const node = h("button", { type: "button" }, mark.node, label);
  node.addEventListener("click", act);
  const update = (/** @type {string} */ text, /** @type {string} */ state, /** @type {boolean} */ off) => {
    mark.update(state);
    say(label, text);
    // Not `disabled`: that would take the keyboard focus away from under the reader.
    set(node, { "aria-disabled": off ? "true" : null });
  };
  return { node, update };
}

/** Elapsed time, items, rate, and how far the job is. @param {number | null} notify @returns {Part} */
function factsPart(notify) {
  const facts = h("span", { class: "sage-facts" }), left = h("span", { class: "sage-left" });
  const curve = g("path"), offer = offerButton();
  const spark = g("svg", { class: "sage-spark", role: "img", viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}` }, curve);
  const bar = progressBar(), waiting = h("div", { class: "sage-waiting" });
  const line = h("div", { class: "sage-line" }, h("span", { class: "sage-known" }, facts, spark), left, offer);
  const node = h("div", {}, line, bar.node, waiting);
  return {
    node,
    update(s, live) {
      const ended = ENDED.has(s.status), known = s.fraction !== null && !ended, path = sparkPath(s.rates);
      set(curve, { d: path });
      set(spark, { hidden: !path, "aria-label": path && words.trend(s) });
      set(offer, { hidden: ended || notify === null || live.elapsed < OFFER_AFTER || !mayAsk() });
      each(facts, words.facts(s, live.elapsed).filter(Boolean), (_, i) => i, textIn("span"));
      const eta = s.eta !== null && s.status === "running" ? words.endsIn(s.eta) : "";
      say(left, known ? [words.percent(s.fraction ?? 0), eta].filter(Boolean).join(" · ") : "");
      bar.update(s.status, s.fraction);
      const again = `%sage_attach ${s.uuid.slice(0, 8)} ${s.server} shows the job again.`;
      const reason = s.waiting_for && !ended ? `Waiting for ${s.waiting_for}` : "";
      const busy = live.away ? "" : " If a cell is busy, Kernel → Interrupt gets through.";
      const gone = "No news from the kernel. It is busy, or it is gone" +
        (s.server ? `: ${again}` : ", and the job with it.");
      say(waiting, ended ? "" : live.lost ? `The kernel was restarted, or it is gone. ${again}`
        : live.silent ? gone + (live.unanswered ? busy : "") : live.unanswered ? `No answer yet.${busy}` : reason);
    },
  };
}

/** @param {"span" | "td" | "th"} tag @param {(i: number) => Attrs} [attrs] */
function textIn(tag, attrs) {
  return (/** @type {string} */ _, /** @type {number} */ i) => {
    const node = h(tag, attrs?.(i));
    return { node, update: (/** @type {string} */ text) => say(node, text) };
  };
}

/** Why the job failed, at the user's own line. @returns {Part} */
function errorPart() {
  const type = h("strong"), message = h("span", { class: "sage-message" }), where = h("div", { class: "sage-muted" });
  const code = h("div", { class: "sage-code", tabindex: 0, role: "group", "aria-label": "The code that failed" });
  const trace = h("pre", { tabindex: 0 });
  const details = h("details", {}, h("summary", {}, "Traceback"), trace);
  const node = h("div", { class: "sage-error", role: "group", "aria-label": "Error" },
    h("div", { class: "sage-cause" }, icon("failed").node, type, message), where, code, details);
  return {
    node,
    update({ error }) {
      set(node, { hidden: !error });
      if (!error) return;
      say(type, error.message ? `${error.type}:` : error.type);
      say(message, error.message);
      const place = [error.operator && `in ${error.operator}`, error.where, error.item && `item ${error.item}`];
      say(where, place.filter(Boolean).join("  ·  "));
      set(code, { hidden: !error.code.length });
      each(code, error.code, (line) => line.number, codeLine);
      set(details, { hidden: !error.traceback });
      say(trace, error.traceback);
    },
  };
}

/** Makes lines of texts, each in a span with its class. @template T @param {string[]} classes
 * @param {(item: T) => Attrs} attrs @param {(item: T) => string[]} texts */
function lineOf(classes, attrs, texts) {
  return () => {
    const parts = classes.map((name) => h("span", { class: name })), node = h("div", {}, ...parts);
    const update = (/** @type {T} */ item) => {
      set(node, attrs(item));
      texts(item).forEach((text, i) => say(parts[i], text));
    };
    return { node, update };
  };
}

const codeLine = lineOf(["sage-mark", "sage-number", "sage-text"],
  (/** @type {CodeLine} */ line) => ({ "data-marked": line.marked }),
  (line) => [line.marked ? "❱" : "", String(line.number), line.text || " "]);
const logLine = lineOf(["sage-log-time", "sage-log-level", "sage-log-source", "sage-log-text"],
  (/** @type {Log} */ log) => ({ "data-level": log.level }),
  (log) => [words.clock(log.time), log.level, log.source, log.text]);

/** A list that is there while it has items. @template T @param {Attrs} attrs @param {(s: Snapshot) => T[]} itemsOf
 * @param {() => {node: Element, update: (item: T) => void}} make @returns {Part} */
function listPart(attrs, itemsOf, make) {
  const node = h("ul", attrs);
  return {
    node,
    update(s) {
      set(node, { hidden: !itemsOf(s).length });
      each(node, itemsOf(s), (_, i) => i, make);
    },
  };
}

const notesPart = () => listPart({ class: "sage-notes", "aria-label": "Notes" }, (s) => s.notes, () => {
  const text = h("span");
  return { node: h("li", {}, icon("note").node, text), update: (said) => say(text, said) };
});

const servicesPart = () => listPart({ class: "sage-chips", "aria-label": "Services" }, (s) => s.services, () => {
  const mark = icon("queued"), name = h("strong"), said = h("span", { class: "sage-muted" });
  const node = h("li", {}, mark.node, name, said);
  const update = (/** @type {Service} */ service) => {
    mark.update(service.state);
    set(node, { "data-state": service.state, title: service.type });
    say(name, service.name);
    const calls = service.calls ? words.namedCount(service.calls, "call") : null;
    say(said, [service.state, calls, service.note].filter(Boolean).join(" · "));
  };
  return { node, update };
});

/** The pipeline as a picture. @returns {Part} */
function picturePart() {
  const edges = g("g", { class: "sage-edges" }), boxes = g("g");
  const svg = g("svg", { role: "img" }, edges, boxes);
  const node = h("div", { class: "sage-picture", tabindex: 0, role: "group", "aria-label": "Pipeline" }, svg);
  return {
    node,
    update(s) {
      const picture = layout(s), { width, height } = picture;
      set(node, { hidden: !s.operators.length });
      set(svg, { viewBox: `0 0 ${width} ${height}`, "aria-label": pictureAlt(s) });
      // A picture that is a little too wide shrinks; one that is much too wide scrolls, and stays legible.
      svg.style.maxWidth = `${width}px`;
      svg.style.minWidth = `${Math.floor(width * SMALLEST)}px`;
      each(edges, picture.edges, (edge) => edge.key, edgeNode);
      const tips = new Map(s.operators.map((op) => [op.id, tip(op)]));
      each(boxes, picture.boxes.map((box) => ({ ...box, tip: tips.get(box.id) ?? "" })), (box) => box.id, boxNode);
    },
  };
}

function edgeNode() {
  const path = g("path"), head = g("path"), node = g("g", {}, path, head);
  const update = (/** @type {EdgePlace & {slow: boolean}} */ edge) => {
    set(path, { d: edge.path, "data-back": edge.back });
    set(head, { d: edge.head });
    set(node, { "data-slow": edge.slow });
  };
  return { node, update };
}

function tip(/** @type {Operator} */ op) {
  const many = words.instances(op), more = words.columns([op]).slice(5);
  const counters = [`${words.count(op.items_in)} in`, `${words.count(op.items_out)} out`, words.rate(op.rate),
    ...more.filter(({ numeric }) => numeric).map(({ head, cells }) => (
      COUNTS.has(head) ? `${cells[0]} ${head.toLowerCase()}` : `${head.toLowerCase()} ${cells[0]}`))];
  const instances = many && `${many}${op.executor !== "thread" ? "" : " instances"}`;
  return [op.name, op.where, instances, counters.join(", ")].filter(Boolean).join("\n");
}

function boxNode() {
  const title = g("title"), outline = g("path", { class: "sage-box" });
  const text = (/** @type {string} */ cls, /** @type {number} */ y) => g("text", { class: cls, y });
  const kind = text("sage-kind", 18), rate = text("sage-kind sage-end", 18);
  const name = text("sage-label", 34), many = text("sage-many sage-end", 34), flow = text("sage-flow", 50);
  const process = g("path", { class: "sage-process", d: PROCESS });
  const bar = (/** @type {string} */ cls) => g("rect", { class: cls, y: 55, height: 2, rx: 1 });
  const track = bar("sage-track"), busy = bar("sage-busy"), blocked = bar("sage-blocked");
  const badge = plate("sage-badge"), waiting = plate("sage-badge sage-waits");
  const node = g("g", {}, title, outline, kind, rate, name, many, process, flow, track, busy, blocked, badge.node,
    waiting.node);
  const update = (/** @type {ReturnType<typeof boxOf> & {tip: string}} */ box) => {
    set(node, { transform: `translate(${box.x} ${box.y})`, "data-failed": box.failed });
    set(outline, { d: box.outline });
    say(title, box.tip);
    for (const part of [kind, name, flow]) set(part, { x: box.left });
    for (const part of [rate, many]) set(part, { x: box.right });
    say(kind, box.kind);
    say(rate, box.rate);
    say(name, box.name);
    say(many, box.many);
    say(flow, box.flow);
    set(process, { visibility: box.process === null && "hidden", transform: `translate(${box.process ?? 0} 25)` });
    set(track, { x: box.left, width: box.busy === null && !box.blocked ? 0 : box.right - box.left });
    set(busy, { x: box.left, width: box.busy ?? 0 });
    set(blocked, { x: box.left + (box.busy ?? 0), width: box.blocked });
    const wide = badgeWidth(box.badge);
    badge.update(box.badge, WIDTH - 10 - wide, wide);
    waiting.update(box.waiting, -12, 6 * box.waiting.length + 12);
    set(waiting.node, { "data-slow": box.slow });
  };
  return { node, update };
}

/** A few words on the upper border of a box. @param {string} cls */
function plate(cls) {
  const rect = g("rect", { y: -8, height: 16, rx: 8 }), text = g("text", { class: "sage-count", y: 4 });
  const node = g("g", { class: cls }, rect, text);
  const update = (/** @type {string} */ said, /** @type {number} */ x, /** @type {number} */ width) => {
    set(node, { visibility: said ? null : "hidden" });
    set(rect, { x, width });
    set(text, { x: x + Math.floor(width / 2) });
    say(text, said);
  };
  return { node, update };
}

/** A table whose cells are patched; its heads are buttons where `sort` is called with the number of the column.
 * @param {string} caption @param {(column: number) => void} [sort] */
function table(caption, sort) {
  const head = h("tr"), body = h("tbody"), title = h("caption", { class: "sage-unseen" }, caption);
  const node = h("div", { class: "sage-table", tabindex: 0, role: "group", "aria-label": caption },
    h("table", {}, title, h("thead", {}, head), body));
  /** @param {string[]} columns @param {string[]} types @param {{key: number, cells: string[]}[]} rows
   * @param {(string | null)[]} [sorted] */
  const update = (columns, types, rows, sorted = []) => {
    const align = (/** @type {number} */ i) => ({ class: types[i] === "number" ? "sage-numeric" : null });
    each(head, columns, (name, i) => `${i} ${types[i]} ${name}`, (name, i) => {
      const press = h("button", { type: "button", title: `${name}: ${types[i]}. Press to sort by it.` }, name);
      press.addEventListener("click", () => sort?.(i));
      return { node: h("th", { scope: "col", ...align(i) }, sort ? press : name), update: () => {} };
    });
    for (const [i, cell] of [...head.children].entries()) set(cell, { "aria-sort": sorted[i] ?? null });
    each(body, rows, (row) => row.key, () => {
      const row = h("tr");
      return { node: row, update: ({ cells }) => each(row, cells, (_, i) => `${i} ${types[i]}`, textIn("td", align)) };
    });
  };
  return { node, update };
}

/** A section whose inside is drawn only while it is open. `about` fills in its summary, and says whether it is there.
 * @param {(string | Element)[]} summary @param {Element} body @param {(s: Snapshot) => void} inside
 * @param {(s: Snapshot, node: HTMLDetailsElement) => boolean} about @returns {Part} */
function section(summary, body, inside, about) {
  const node = h("details", {}, h("summary", {}, ...summary), body);
  let last = /** @type {Snapshot | null} */ (null);
  node.addEventListener("toggle", () => node.open && last && inside(last));
  return {
    node,
    update(s) {
      last = s;
      set(node, { hidden: !about(s, node) });
      if (node.open) inside(s);
    },
  };
}

/** All counters of all operators, for who wants them exactly or cannot see the picture. */
function operatorsPart() {
  const title = h("span"), grid = table("Operators");
  const draw = (/** @type {Snapshot} */ s) => {
    const columns = words.columns(s.operators);
    const rows = s.operators.map((_, key) => ({ key, cells: columns.map(({ cells }) => cells[key]) }));
    grid.update(columns.map(({ head }) => head), columns.map(({ numeric }) => (numeric ? "number" : "text")), rows);
  };
  return section([title], grid.node, draw, ({ operators }) => {
    say(title, words.namedCount(operators.length, "operator"));
    return operators.length > 0;
  });
}

/** @param {string[]} formats @param {(result: string, format: string) => void} download
 * @returns {Part & {answer: (of: File, data: DataView<ArrayBuffer>[]) => void}} */
function resultsPart(formats, download) {
  const node = h("div", { class: "sage-results" });
  let made = /** @type {Map<string | number, ReturnType<typeof resultNode>>} */ (new Map());
  return {
    node,
    answer: (of, data) => made.get(`result ${of.result}`)?.answer(of, data),
    update(s) {
      const dead = new Set(s.dead_letters.map(words.deadLetters)), tables = [...s.results, ...dead];
      set(node, { hidden: !tables.length });
      made = each(node, tables, (one) => `${dead.has(one) ? "dead" : "result"} ${one.name}`, (one) =>
        resultNode(one.name, ENDED.has(s.status), dead.has(one) ? [] : formats, download));
    },
  };
}

const FEW_ROWS = 5;
const FORMATS = /** @type {Record<string, string>} */ ({ csv: "CSV", parquet: "Parquet" });

/** The rows of one result, sorted and filtered as the reader likes; new ones are followed unless they all were there
 * from the start. @param {string} caption @param {boolean} ended @param {string[]} formats
 * @param {(result: string, format: string) => void} download */
function resultNode(caption, ended, formats, download) {
  const name = h("strong"), total = h("span", { class: "sage-muted" }), picture = h("img", { class: "sage-image" });
  const hint = { placeholder: "Filter", "aria-label": `Filter ${caption}` };
  const filter = h("input", { type: "search", class: "sage-filter", ...hint });
  const files = formats.map((format) => fileButton(caption, format, () => download(caption, format)));
  const tools = h("span", { class: "sage-tools" }, filter, ...files.map((file) => file.node));
  let seen = ended ? -1 : 0, by = -1, down = false;
  const grid = table(`Result ${caption}`, (column) => {
    [by, down] = by !== column ? [column, false] : down ? [-1, false] : [column, true];
    draw();
  });
  const heading = h("div", { class: "sage-heading" }, name, total, tools);
  const node = h("div", { class: "sage-result" }, heading, picture, grid.node);
  let latest = /** @type {Result} */ ({});
  filter.addEventListener("input", () => draw());
  const draw = () => {
    const { rows, columns, types } = latest, first = latest.total - rows.length;
    const sorted = by in columns ? order(rows, by, types[by], down) : [...rows.keys()];
    const left = sorted.filter((i) => !filter.value || matches(rows[i], filter.value));
    const way = columns.map((_, i) => (i !== by ? null : down ? "descending" : "ascending"));
    grid.update(columns, types, left.map((i) => ({ key: first + i, cells: rows[i] })), way);
    const some = `${words.count(left.length)} of ${words.namedCount(rows.length, "row")}`;
    say(total, filter.value ? some : words.extent(latest, rows.length));
  };
  const update = (/** @type {Result} */ result) => {
    latest = result;
    const src = /^data:image\/(png|jpeg);/.test(result.picture ?? "") ? result.picture : null;
    const alone = result.picture !== null && result.columns.length < 2;
    say(name, result.name);
    set(grid.node, { hidden: !result.rows.length || alone });
    set(filter, { hidden: alone || (result.rows.length <= FEW_ROWS && !filter.value) });
    set(picture, { hidden: !src, src, alt: `The newest item of ${result.name}` });
    for (const file of files) set(file.node, { hidden: !result.total || result.picture !== null });
    if (seen < 0 || seen === result.total || by >= 0) draw();
    else following(grid.node, draw);
    seen = result.total;
  };
  const answer = (/** @type {File} */ of, /** @type {DataView<ArrayBuffer>[]} */ data) =>
    files[formats.indexOf(of.format)]?.answer(of.error, data);
  return { node, update, answer };
}

/** Asks for a result as a file, and saves what comes.
 * @param {string} name @param {string} format @param {() => void} ask */
function fileButton(name, format, ask) {
  const hint = `Download what ${name} holds as ${FORMATS[format]}`;
  const press = h("button", { type: "button", title: hint }, FORMATS[format]), said = h("span", { role: "status" });
  const show = (/** @type {boolean} */ busy, /** @type {string} */ text) => {
    say(press, busy ? "preparing…" : FORMATS[format]);
    set(press, { "aria-disabled": busy ? "true" : null });
    say(said, text);
  };
  press.addEventListener("click", () => {
    if (press.ariaDisabled) return;
    show(true, "");
    ask();
  });
  const answer = (/** @type {string | null} */ error, /** @type {DataView<ArrayBuffer>[]} */ data) => {
    show(false, error ?? "");
    if (error !== null) return;
    const href = URL.createObjectURL(new Blob(data));
    h("a", { download: `${name}.${format}`, href }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
  };
  return { node: h("span", { class: "sage-file" }, press, said), answer };
}

/** The log. It opens by itself once, at the first error that has no card of its own; warnings only get a badge, because
 * a panel that opens moves the page. */
function logsPart() {
  const said = h("span", { class: "sage-muted" }), alarm = h("span", { class: "sage-alarm" });
  const lines = h("div", { class: "sage-lines", tabindex: 0, role: "group", "aria-label": "Log lines" });
  let mayOpen = true;
  const draw = (/** @type {Snapshot} */ s) => following(lines, () =>
    each(lines, s.logs, (_, i) => s.log_total - s.logs.length + i, logLine));
  const part = section(["Log", said, alarm], lines, draw, (s, node) => {
    const errors = s.logs.filter((log) => ["ERROR", "CRITICAL"].includes(log.level)).length;
    const warnings = s.logs.filter((log) => log.level === "WARNING").length;
    say(said, words.showing(s.log_total, s.logs.length, "line"));
    const counts = [errors && words.namedCount(errors, "error"), warnings && words.namedCount(warnings, "warning")];
    say(alarm, counts.filter(Boolean).join(", "));
    set(alarm, { hidden: !alarm.textContent, "data-level": errors ? "ERROR" : "WARNING" });
    const opens = mayOpen && errors > 0 && !s.error;
    if (opens) node.open = true;
    mayOpen &&= !opens;
    return s.log_total > 0;
  });
  part.node.addEventListener("click", () => (mayOpen = false));
  return part;
}

/** The last lines that were printed, where a job prints more than goes into its cell. */
function outputPart() {
  const said = h("span", { class: "sage-muted" });
  const lines = h("pre", { tabindex: 0, role: "group", "aria-label": "Last lines printed" });
  const draw = (/** @type {Snapshot} */ s) => following(lines, () => say(lines, (s.output?.lines ?? []).join("\n")));
  return section(["Output", said], lines, draw, ({ output }) => {
    if (output) say(said, words.showing(output.total, output.lines.length, "line"));
    return output !== null;
  });
}

// ------------------------------------------------------------------ notices

const OFFER_AFTER = 10, DECLINED = "sage_nb: no notices";

/** Whether the reader may still be asked: browser and reader have not said yes or no. */
const mayAsk = () =>
  "Notification" in globalThis && Notification.permission === "default" && !localStorage.getItem(DECLINED);

function offerButton() {
  const node = h("button", { type: "button", class: "sage-offer", hidden: true }, "Tell me when it ends");
  node.addEventListener("click", async () => {
    if ((await Notification.requestPermission()) !== "granted") localStorage.setItem(DECLINED, "yes");
    node.hidden = true;
  });
  return node;
}

/** Jobs whose end was told on this page, by whichever copy of this module. @type {Set<string>} */
const TOLD = (/** @type {any} */ (globalThis)).sageTold ??= new Set();

/** Tells a reader who is elsewhere that a job has ended, once. @param {Snapshot} s */
function tellEnd(s) {
  const known = TOLD.has(s.uuid), { title, body } = words.notice(s), mark = `${title} · `;
  TOLD.add(s.uuid);
  if (known || (document.visibilityState === "visible" && document.hasFocus())) return;
  document.title = mark + document.title;
  addEventListener("focus", () => (document.title = document.title.replace(mark, "")), { once: true });
  if (!("Notification" in globalThis) || Notification.permission !== "granted") return;
  const notice = new Notification(title, { body, tag: s.uuid });
  notice.onclick = () => {
    window.focus();
    notice.close();
  };
}

// ------------------------------------------------------------------ the view

export const TICK_MS = 250;
/** By command, the states in which it is still to be carried out. @type {Record<string, string[]>} */
const WAITS_ON = {
  stop: ["created", "queued", "starting", "running", "paused", "restarting"], pause: ["running"], resume: ["paused"],
};

/** Shows a job in `el`. @param {HTMLElement} el @param {ViewOptions} options @returns {JobView} */
export function mountJob(el, { onCommand, theme, notify = null, formats = [] }) {
  const results = resultsPart(formats, (result, format) => kernel.tell({ command: "download", result, format }));
  const parts = [headerPart(press), factsPart(notify), errorPart(), notesPart(), picturePart(), operatorsPart(),
    servicesPart(), results, outputPart(), logsPart()];
  const status = h("div", { class: "sage-unseen", role: "status", "aria-live": "polite" });
  const looks = { class: "sage-job", role: "region", tabindex: -1, "data-theme": theme ?? null, hidden: true };
  const root = h("section", looks, ...parts.map((part) => part.node), status);
  el.append(root);

  let latest = /** @type {Snapshot | null} */ (null), pending = /** @type {string | null} */ (null);
  let drawn = "", seenAt = 0, frame = 0, visible = true, pressedAt = 0, notedAt = 0;
  let away = false, lost = false, unfollow = /** @type {(() => void) | null} */ (null);

  /** @returns {Live} */
  function live() {
    const now = performance.now(), ticks = latest !== null && TICKING.has(latest.status);
    const silent = ticks && now - seenAt > SILENCE_MS;
    const elapsed = (latest?.elapsed ?? 0) + (ticks && !silent ? (now - seenAt) / 1000 : 0);
    return { pending, elapsed, silent, away, lost, unanswered: pending !== null && now - pressedAt > ANSWER_MS };
  }

  /** The kernel says nothing: the page's plugin may know how the job goes on. */
  function ask() {
    if (!latest || ENDED.has(latest.status)) return;
    const take = (/** @type {Snapshot | null} */ snapshot) => {
      if (snapshot) return update(snapshot);
      if (!latest || !away) return;
      pending = null;
      if (latest.server) lost = true;
      else update({ ...latest, status: "stopped", reason: GONE });
      schedule();
    };
    unfollow ??= page()?.follow(latest.uuid, take) ?? null;
    if (!unfollow) take(null);
  }

  function press(/** @type {"stop" | "pause" | "resume"} */ command) {
    const free = !lost && (pending === null || (command === "stop" && pending !== "stop"));
    if (!latest || !free || !WAITS_ON[command].includes(latest.status)) return;
    pending = command;
    pressedAt = performance.now();
    notedAt = latest.notes.length;
    draw();
    // By way of the Jupyter server where that knows the job: it gets through while the kernel is busy with a cell. A
    // second copy would be carried out much later, when the cell has ended; only a second Stop does no harm.
    const sent = page()?.command(latest.uuid, command);
    if (!sent || command === "stop") kernel.tell({ command });
  }

  function draw() {
    frame = 0;
    if (!latest) return;
    const hadFocus = root.contains(document.activeElement), now = live();
    const shown = pending === "stop" ? "stopping" : latest.status;
    root.hidden = false;
    for (const part of parts) part.update(latest, now);
    const ended = ENDED.has(latest.status);
    set(root, { "data-job": latest.uuid, "data-status": shown, "data-away": away, "data-amiss": !!latest.reason });
    set(root, { "aria-label": `Job ${latest.name} (${latest.uuid.slice(0, 8)})` });
    // What a screen reader says; counters are never announced.
    const cause = shown === "failed" && latest.error ? `: ${latest.error.type}: ${latest.error.message}` : "";
    const word = words.stateWord(shown, latest.reason).toLowerCase();
    if (shown !== drawn) say(status, `Job ${latest.name}: ${word}${cause}`);
    drawn = shown;
    // The buttons of a job that ended are gone; the keyboard goes on from the job, not from the top of the page.
    if (hadFocus && ended && document.activeElement?.closest("[hidden]")) root.focus({ preventScroll: true });
    if (ended) release();
  }

  /** Listens to nothing any more, as of a job that has ended there is nothing to hear. */
  function release() {
    clearInterval(timer);
    kernel.end();
    unfollow?.();
  }

  function schedule() {
    if (visible && !frame) frame = requestAnimationFrame(draw);
  }

  function update(/** @type {Snapshot} */ snapshot) {
    const ends = latest && !ENDED.has(latest.status) && ENDED.has(snapshot.status);
    latest = snapshot;
    seenAt = performance.now();
    lost = false;
    const answered = pending && !WAITS_ON[pending].includes(snapshot.status);
    // A note says what became of an order: it can be given again.
    if (answered || snapshot.notes.length > notedAt) pending = null;
    schedule();
    if (ends && notify !== null && snapshot.elapsed >= notify) tellEnd(snapshot);
  }

  const kernel = speaker(el, onCommand, () => {
    away = true;
    ask();
  }, (now) => {
    visible = now;
    schedule();
  });
  const timer = setInterval(() => {
    if (!visible || !latest || ENDED.has(latest.status)) return;
    const { silent, unanswered } = live();
    if (silent && unanswered) ask();
    if (!frame) for (const part of parts.slice(0, 2)) part.update(latest, live());
  }, TICK_MS);
  kernel.view({ open: true });

  return {
    answer: results.answer,
    update,
    dispose() {
      if (!root.isConnected && !root.parentNode) return;
      release();
      cancelAnimationFrame(frame);
      root.remove();
      kernel.view({ open: false });
    },
  };
}

// ------------------------------------------------------------------ the widget

/** @param {{model: Model, el: HTMLElement}} context */
function render({ model, el }) {
  let asked = 0;
  const answer = (/** @type {File} */ of, /** @type {DataView<ArrayBuffer>[]} */ data) => {
    if (!--asked) model.off("msg:custom", answer);
    job.answer(of, data);
  };
  const onCommand = (/** @type {Command} */ said) => {
    model.send(said);
    if (said.command === "download" && !asked++) model.on("msg:custom", answer);
  };
  const job = mountJob(el, { onCommand, notify: model.get("notify") ?? null, formats: model.get("formats") ?? [] });
  const draw = () => {
    const { results, ...rest } = model.get("snapshot") ?? {}, pictures = model.get("pictures") ?? {};
    if (!rest.uuid) return;
    const whole = (/** @type {Result} */ one) => ({ ...one, picture: pictures[one.name] ?? null }); // they come apart
    job.update({ ...rest, results: results.map(whole) });
    if (!ENDED.has(rest.status)) return;
    model.off("change:snapshot", draw); // else it would hold the view as long as the page is open
    goOn(model, el);
  };
  model.on("change:snapshot", draw);
  draw();
  /** @type {any} */ (el.firstElementChild).sageSaved = () => model.get("saved"); // for the plugin
  return () => {
    model.off("change:snapshot", draw);
    model.off("msg:custom", answer);
    job.dispose();
  };
}

/** When a job has ended, HTML takes the place of its view, which is what the notebook keeps. On the page the view goes
 * on instead, so that results can be sorted, and had as files. @param {Model} model @param {HTMLElement} el */
function goOn(model, el) {
  const place = el.closest(".jp-OutputArea-child"), area = place?.parentElement;
  if (!area) return;
  const index = [...area.children].indexOf(place), host = h("div");
  const look = new MutationObserver(() => {
    const html = area.children[index]?.querySelector(".jp-RenderedHTMLCommon");
    if (html?.querySelector("code")?.textContent !== model.get("snapshot").uuid.slice(0, 8)) return;
    look.disconnect();
    html?.classList.remove("jp-RenderedHTMLCommon"); // its looks are for documents
    html?.replaceChildren(host);
    render({ model, el: host });
  });
  look.observe(area, { childList: true, subtree: true });
  setTimeout(() => look.disconnect(), 5000);
}

export default { render };
