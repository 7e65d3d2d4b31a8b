// Make each table of tasks sortable by its headings and add a filter. Without script the table is static.
"use strict";

function makeSortable(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      // The first click sorts numbers in descending order and texts in ascending order.
      const numeric = heading.dataset.kind === "number";
      const previous = heading.getAttribute("aria-sort");
      const ascending = previous === null ? !numeric : previous === "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = numeric
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
      // Sort by id first, so that rows with equal values stay in the order of their ids.
      const rows = [...body.rows].sort((a, b) => Number(a.dataset.place) - Number(b.dataset.place));
      body.append(...rows.sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
    });
  });
}

function addFilter(table, place) {
  const rows = [...table.tBodies[0].rows];
  const shownCount = document.createElement("output");
  const fieldset = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = "Show tasks";
  fieldset.append(legend);
  const show = (state) => {
    rows.forEach((row) => { row.hidden = state !== "all" && row.dataset.state !== state; });
    shownCount.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} tasks`;
  };
  for (const state of ["all", "solved", "unsolved", "disagreeing"]) {
    const count = state === "all" ? rows.length : rows.filter((row) => row.dataset.state === state).length;
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `show-${table.id}`, value: state, checked: state === "all" });
    input.addEventListener("change", () => show(state));
    label.append(input, ` ${state} (${count})`);
    fieldset.append(label);
  }
  place.replaceChildren(fieldset, " ", shownCount);
  show("all");
}

for (const table of document.querySelectorAll("table[data-tasks]")) {
  makeSortable(table);
  addFilter(table, document.getElementById(`filter-${table.id}`));
}
