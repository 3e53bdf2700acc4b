// Tables. An update changes the texts and keeps the elements of the rows, so that the focus stays.

import { call } from "./api.js";
import { add, el, note, show } from "./dom.js";
import { poll } from "./poll.js";

const PAGE = 50;

/**
 * Return a table.
 *
 * columns: each with a title, and a function that returns the text or the node of a row's cell; isNumber aligns the
 * column to the right. A cell with a node is replaced only if the text that same returns has changed. keyOf: returns
 * the key of a row.
 */
export class Table {
  constructor(columns, keyOf, empty) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.rows = new Map();
    this.body = el("tbody");
    this.empty = note(empty);
    const titles = columns.map((column) => el("th", { scope: "col", class: column.isNumber && "number" }, column.title));
    this.table = el("table", {}, el("thead", {}, el("tr", {}, titles)), this.body);
    this.element = el("div", { class: "rows" }, this.table, this.empty);
    this.empty.hidden = true;
  }

  /** Replace the rows. */
  show(rows) {
    const before = this.rows;
    this.rows = new Map();
    let place = this.body.firstElementChild;
    for (const row of rows) {
      const key = this.keyOf(row);
      const known = before.get(key) ?? this._make();
      before.delete(key);
      this._fill(known, row);
      this.rows.set(key, known);
      if (known.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(known.element, place);
    }
    for (const { element } of before.values()) element.remove();
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }

  _make() {
    const cells = this.columns.map((column) =>
      el("td", { "data-title": column.title, class: column.isNumber && "number" }),
    );
    return { element: el("tr", {}, cells), cells, told: [] };
  }

  _fill(known, row) {
    this.columns.forEach((column, index) => {
      const same = column.same ? column.same(row) : column.cell(row);
      if (known.told[index] === same) return;
      known.told[index] = same;
      known.cells[index].replaceChildren();
      add(known.cells[index], column.cell(row));
    });
  }
}

/**
 * Show a list of the API page by page, and refresh the page in view.
 *
 * method, params: the call. rows: the key of the answer with the rows. The other parameters are those of Table.
 */
export function pages({ method, params = {}, rows, columns, keyOf, empty, signal, seconds = 5, limit = PAGE }) {
  const table = new Table(columns, keyOf, empty);
  const status = note("Loading", { role: "status" });
  const back = el("button", { type: "button", click: () => turn(() => cursors.pop()) }, "Previous page");
  const next = el("button", { type: "button", click: () => turn(() => cursors.push(following)) }, "Next page");
  const place = el("span", { class: "quiet" });
  const bar = el("nav", { class: "pages", "aria-label": "Pages" }, back, place, next);
  const cursors = [];
  let following = null;
  let current = new AbortController();

  async function load() {
    const cursor = cursors.length ? { cursor: cursors.at(-1) } : {};
    const found = await call(method, { limit, ...params, ...cursor }, current.signal);
    following = found.next ?? null;
    table.show(found[rows]);
    const missing = found.unanswered?.length ?? 0;
    status.textContent = missing ? `${missing} of the nodes did not answer: their rows are missing.` : "";
    status.hidden = !missing;
    back.disabled = !cursors.length;
    next.disabled = following === null;
    place.textContent = `Page ${cursors.length + 1}`;
    bar.hidden = !cursors.length && following === null;
  }

  function start() {
    current = new AbortController();
    poll(load, seconds, current.signal, (error) => {
      if (error !== null) {
        status.textContent = error.message;
        status.hidden = false;
      }
    });
  }

  function turn(change) {
    change();
    current.abort();
    start();
  }

  bar.hidden = true;
  signal.addEventListener("abort", () => current.abort());
  start();
  return { element: el("div", {}, status, table.element, bar), again: () => turn(() => {}) };
}

/** Return a description list of pairs of a term and its text or node. Pairs with null are left out. */
export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  showFacts(list, pairs);
  return list;
}

/** Replace the pairs of a description list. */
export function showFacts(list, pairs) {
  const found = pairs.filter(([, value]) => value !== null && value !== undefined);
  show(list, found.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}
