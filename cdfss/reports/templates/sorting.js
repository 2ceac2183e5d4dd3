"use strict";
// Every table sorts by any column: by the first number of a cell where most cells begin with one, else by
// text. Details stay below their row, quoted values and totals below all. A third click, or the button
// below, brings the original order back.
const collator = new Intl.Collator("en", { numeric: true });

/** The number that a cell begins with, "1,234 [1,100, 1,300]" or "−0.4*"; NaN where it begins with none. */
function numberIn(text) {
  const begin = text.trim().replaceAll("−", "-").replace(/(\d),(?=\d{3}(?!\d))/g, "$1");
  return parseFloat(begin.replace(/^[<>≤≥~+]\s*/, ""));
}

/** The order after this one of a column: numbers begin with the largest, text with A. */
function nextSort(before, numeric) {
  const orders = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
  return before === null ? orders[0] : before === orders[0] ? orders[1] : null;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const original = [...table.tBodies];
  const groups = original.length > 1 ? original : [...original[0]?.rows ?? []];
  const rank = group => group.matches(".total") ? 2 : group.matches(".quoted") ? 1 : 0;
  const textOf = (group, column) => (group.rows?.[0] ?? group).cells[column]?.textContent.trim() ?? "";
  const columns = heads.map((head, column) => {
    const texts = groups.map(group => textOf(group, column)).filter(Boolean);
    return { numeric: 2 * texts.filter(text => !Number.isNaN(numberIn(text))).length > texts.length };
  });
  const said = document.createElement("p");
  said.className = "seen-by-readers";
  said.setAttribute("role", "status");
  const restore = document.createElement("button");
  Object.assign(restore, { type: "button", className: "plain restore", textContent: "Original order", hidden: true });
  const box = table.closest(".scroll");
  box.after(restore, said);

  const order = (column, direction) => {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    let sorted = groups;
    if (direction) {
      heads[column].setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const texts = [textOf(a, column), textOf(b, column)];
        if (!columns[column].numeric) return sign * collator.compare(...texts);
        const [x, y] = texts.map(numberIn);  // cells without a number are last in both directions
        return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : sign * (x - y);
      };
      sorted = [...groups].sort((a, b) => rank(a) - rank(b) || compare(a, b));
    }
    (original.length > 1 ? table : original[0]).append(...sorted);
    restore.hidden = !direction;
    said.textContent = direction
      ? `Sorted by ${heads[column].textContent}, ${direction}.` : "In the original order.";
  };
  heads.forEach((head, column) => head.addEventListener("click", () =>
    order(column, nextSort(head.getAttribute("aria-sort"), columns[column].numeric))));
  restore.addEventListener("click", () => {
    order(0, null);
    heads[0].querySelector("button").focus();  // the button that was pressed is gone
  });
}

for (const table of document.querySelectorAll("table.sortable")) sortable(table);
