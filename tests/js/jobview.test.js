// The rules by which the view speaks and draws, without a page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { layout, words } from "../../sage_nb/notebook/static/jobview.js";

test("durations are said in at most two units", () => {
  assert.deepEqual([0, 0.021, 3.25, 59.99, 64.2, 8105, 86400].map(words.duration),
    ["0 s", "21 ms", "3.3 s", "59 s", "1 min 04 s", "2 h 15 min", "1 d 00 h"]);
});

test("rates have two or three figures", () => {
  assert.deepEqual([0, 0.01, 2.5, 999.6, 8140, 1_234_567].map(words.rate),
    ["0/s", "< 0.1/s", "2.5/s", "1 k/s", "8.1 k/s", "1.2 M/s"]);
});

test("a job without operators has no picture", () => {
  assert.deepEqual(layout(/** @type {any} */ ({ operators: [], status: "running", error: null })),
    { width: 0, height: 0, boxes: [], edges: [] });
});
