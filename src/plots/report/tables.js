"use strict";
// Sorting of tables by a click on a column, opening of folded parts for printing, and the current place in the contents.

function sortTable(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const numeric = header.classList.contains("number");
  const current = header.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending"; // readers look for the greatest number
  const order = current === first ? (numeric ? "ascending" : "descending") : first;
  const sign = order === "ascending" ? 1 : -1;
  const key = (row) => {
    const cell = row.cells[column];
    return numeric ? (cell.dataset.order === undefined ? NaN : Number(cell.dataset.order)) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (!numeric) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // missing values come last
    return sign * (a - b);
  };
  const rows = Array.from(table.tBodies[0].rows, (row) => [key(row), row]);
  rows.sort((a, b) => compare(a[0], b[0]));
  table.tBodies[0].append(...rows.map((pair) => pair[1]));
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sortTable(button.closest("th")));
}

// A table that is wider than the screen says so above it.
const hints = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const hint = target.previousElementSibling;
    if (hint && hint.classList.contains("hint")) hint.hidden = target.scrollWidth <= target.clientWidth + 1;
  }
});
for (const scroller of document.querySelectorAll(".scroll")) hints.observe(scroller);

const folded = [];
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    folded.push(part);
  }
});
addEventListener("afterprint", () => {
  for (const part of folded.splice(0)) part.open = false;
});

const links = new Map(Array.from(document.querySelectorAll("nav a"), (link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.classList.remove("here");
      links.get(entry.target.id).classList.add("here");
    }
  },
  { rootMargin: "-20% 0px -70% 0px" },
);
for (const section of document.querySelectorAll("main > section")) watcher.observe(section);
