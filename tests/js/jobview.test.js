// The rules by which the view speaks and draws, without a page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { layout, matches, order, sortKey, sparkPath, words } from "../../sage_nb/notebook/static/jobview.js";

test("durations are said in at most two units", () => {
  assert.deepEqual([0, 0.021, 3.25, 59.99, 64.2, 8105, 86400].map(words.duration),
    ["0 s", "21 ms", "3.3 s", "59 s", "1 min 04 s", "2 h 15 min", "1 d 00 h"]);
});

test("rates have two or three figures", () => {
  assert.deepEqual([0, 0.01, 2.5, 999.6, 8140, 1_234_567].map(words.rate),
    ["0/s", "< 0.1/s", "2.5/s", "1 k/s", "8.1 k/s", "1.2 M/s"]);
});

test("a job without operators has no picture", () => {
  const drawing = { width: 0, height: 0, boxes: [], edges: [] };
  assert.deepEqual(layout(/** @type {any} */ ({ operators: [], drawing, status: "running", error: null })), drawing);
});

test("cells are sorted by what they are, not by how they are written", () => {
  assert.deepEqual(["1,234", "-2.5", "1e+06", "inf", "-inf"].map((text) => sortKey(text, "number")),
    [1234, -2.5, 1e6, Infinity, -Infinity]);
  assert.deepEqual(["0:00:05", "1 day, 0:00:01", "-1 day, 23:59:59", "2 days 01:00:00.5", "3 days"]
    .map((text) => sortKey(text, "duration")), [5, 86401, -1, 176400.5, 259200]);
  assert.ok(sortKey("2025-01-01 10:00:00+02:00", "time") < sortKey("2025-01-01 09:00:00+00:00", "time"));
  assert.deepEqual([["nan", "number"], ["", "number"], ["12", "text"], ["soon", "time"], ["?", "duration"]]
    .map(([text, type]) => sortKey(text, type)), ["nan", "", "12", "soon", "?"]);
});

test("a sort keeps equal rows in order, and what has no value at the end, up and down", () => {
  const rows = [["b"], [""], ["nan"], ["10"], ["9"], ["10"]];
  assert.deepEqual(order(rows, 0, "number", false), [4, 3, 5, 0, 2, 1]);
  assert.deepEqual(order(rows, 0, "number", true), [3, 5, 4, 2, 0, 1]);
  assert.deepEqual(order([["run 10"], ["run 9"], ["Run 1"]], 0, "text", false), [2, 1, 0]);
});

test("a filter looks for the words in every cell, whatever their case", () => {
  const rows = [["Zürich", "9"], ["Tokyo", "21"]];
  assert.deepEqual(["ZÜR", " 21 ", "x", ""].map((words) => rows.filter((row) => matches(row, words)).length), [1, 1, 0, 2]);
});

test("the curve goes from the first rate to the last, and needs two", () => {
  assert.equal(sparkPath([0, 5, 10]), "M0,17L48,9L96,1");
  assert.deepEqual([[], [3], [0, 0, 0]].map(sparkPath), ["", "", ""]);
});

test("a notice says what became of the job, how long it took and why it failed", () => {
  const job = { name: "squares", status: "completed", elapsed: 64.2, error: null };
  assert.deepEqual(words.notice(/** @type {any} */ (job)), { title: "✓ squares", body: "Completed after 1 min 04 s" });
  const error = { type: "ValueError", message: "no\nsecond line" };
  assert.equal(words.notice(/** @type {any} */ ({ ...job, status: "failed", error })).body,
    "Failed after 1 min 04 s\nValueError: no");
});
