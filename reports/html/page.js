// Makes each table of tasks sortable by its headings and adds the filter; without script the table is just read.
"use strict";

function sortable(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      // Numbers begin with the largest, texts with the first.
      const numeric = heading.dataset.kind === "number";
      const before = heading.getAttribute("aria-sort");
      const ascending = before === null ? !numeric : before === "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = numeric
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
      // Rows that are equal stay in the order of their ids.
      const rows = [...body.rows].sort((a, b) => Number(a.dataset.place) - Number(b.dataset.place));
      body.append(...rows.sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
    });
  });
}

function filterable(table, place) {
  const rows = [...table.tBodies[0].rows];
  const said = document.createElement("output");
  const fieldset = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = "Show tasks";
  fieldset.append(legend);
  const show = (state) => {
    rows.forEach((row) => { row.hidden = state !== "all" && row.dataset.state !== state; });
    said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} tasks`;
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
  place.replaceChildren(fieldset, " ", said);
  show("all");
}

for (const table of document.querySelectorAll("table[data-tasks]")) {
  sortable(table);
  filterable(table, document.getElementById(`filter-${table.id}`));
}
