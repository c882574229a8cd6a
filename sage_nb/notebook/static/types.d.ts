// What the views are told and what they say: types only, which `make lint` checks. The page loads nothing of this.

/** A job at one moment: `JobSnapshot` in `sage_nb/jobs/snapshot.py`, which says what the fields mean. */
export interface Snapshot {
  uuid: string;
  name: string;
  status: string;
  backend: string;
  server: string | null;
  attempt: number;
  started: number | null;
  elapsed: number;
  items: number;
  rate: number;
  rates: number[];
  total: number | null;
  fraction: number | null;
  eta: number | null;
  waiting_for: string | null;
  operators: Operator[];
  drawing: { width: number; height: number; boxes: BoxPlace[]; edges: EdgePlace[] };
  services: Service[];
  results: Result[];
  dead_letters: DeadLetters[];
  logs: Log[];
  log_total: number;
  output: { total: number; held: number; lines: string[] } | null;
  error: Failure | null;
  reason: string | null;
  notes: string[];
}

export interface Operator {
  id: number;
  name: string;
  kind: string;
  col: number;
  row: number;
  upstream: number[];
  items_in: number;
  items_out: number;
  rate: number;
  busy: number | null;
  queued: number;
  errors: number;
  where: string | null;
  stage: number;
  parallelism: number;
  executor: string;
  blocked: number | null;
  p50: number | null;
  p99: number | null;
  late: number;
}

export interface BoxPlace {
  id: number;
  x: number;
  y: number;
  left: number;
  right: number;
  outline: string;
  kind: string;
  name: string;
  many: string;
  process: number | null;
}

export interface EdgePlace {
  key: string;
  start: number;
  end: number;
  path: string;
  head: string;
  back: boolean;
}

export interface Service {
  name: string;
  type: string;
  state: string;
  calls: number;
  note: string | null;
}

export interface Result {
  name: string;
  kind: string;
  total: number;
  columns: string[];
  types: string[];
  rows: string[][];
  shape: [number, number] | null;
  picture: string | null;
  /** How many of the items the job still has; null for all. */
  kept: number | null;
}

export interface DeadLetters {
  operator: string;
  total: number;
  rows: string[][];
}

export interface Log {
  time: number;
  level: string;
  source: string;
  text: string;
}

export interface Failure {
  type: string;
  message: string;
  operator: string | null;
  item: string | null;
  where: string | null;
  code: CodeLine[];
  traceback: string;
}

export interface CodeLine {
  number: number;
  text: string;
  marked: boolean;
}

/** What a job's view says: what was pressed, and whether it is open and in sight. */
export type Command =
  | { command: "stop" | "pause" | "resume" }
  | { command: "view"; id: string; open: boolean }
  | { command: "view"; id: string; visible: boolean }
  | { command: "download"; result: string; format: string };

/** The answer to a download; its content comes beside it. */
export interface File {
  result: string;
  format: string;
  error: string | null;
}

/** What the page knows of a job beside its snapshot. */
export interface Live {
  pending: string | null;
  unanswered: boolean;
  silent: boolean;
  /** The kernel is gone. */
  away: boolean;
  /** And nobody else tells of the job. */
  lost: boolean;
  elapsed: number;
}

export interface ViewOptions {
  /** Gets what the reader presses, and whether the view is open and in sight. Raises where the kernel is gone. */
  onCommand(command: Command): void;
  theme?: "light" | "dark";
  /** After how many seconds a job's end is told to a reader who is elsewhere; null for never. */
  notify?: number | null;
  /** Those that a result can be had in, by `onCommand` and then `answer`. */
  formats?: string[];
}

export interface JobView {
  update(snapshot: Snapshot): void;
  answer(of: File, data: DataView<ArrayBuffer>[]): void;
  dispose(): void;
}

/** A part of a job's view. */
export interface Part {
  node: Element;
  update(snapshot: Snapshot, live: Live): void;
}

/** A line of a table of jobs: `JobRow` in `sage_nb/jobs/board.py`, which says what the fields mean. */
export interface Row {
  uuid: string;
  name: string;
  status: string;
  where: "kernel" | "server";
  place: string;
  path: string | null;
  cell: string | null;
  started: number | null;
  elapsed: number;
  items: number;
  rate: number;
  fraction: number | null;
  services: { name: string; state: string }[];
  error: string | null;
  reason: string | null;
}

/** What can be pressed in a row. */
export type Order = "stop" | "open" | "attach" | "show" | "hide";

export interface TableOptions {
  kit: typeof import("./jobview.js");
  onCommand(said: { command: Order; job: string }): void;
  theme?: "light" | "dark";
  /** Those that are offered, if not all. */
  commands?: Order[];
}

/** A widget's model, as anywidget gives it. */
export interface Model {
  get(name: string): any;
  on(event: string, listener: (...args: any[]) => void): void;
  off(event: string, listener: (...args: any[]) => void): void;
  send(content: any): void;
}
