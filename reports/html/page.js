// Make each table of tasks sortable, filter it, and open its tasks. Without script the table is static.

function makeSortable(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = element("button", { type: "button", textContent: heading.textContent });
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

// What a filter shows, given what each model made of a task: "solved", "lost" or "never" (proposed).
const FILTERS = {
  all: () => true,
  solved: (states) => states.every((state) => state === "solved"),
  unsolved: (states) => states.every((state) => state !== "solved"),
  lost: (states) => states.includes("lost"),
  never: (states) => states.every((state) => state === "never"),
  differing: (states) => states.includes("solved") && states.some((state) => state !== "solved"),
};

class TaskTable {
  constructor(table) {
    this.table = table;
    table.classList.add("scripted");
    this.data = JSON.parse(document.getElementById(`grids-${table.id}`).textContent);
    this.group = `show-${table.id}`;
    this.current = null;
    this.state = "all";
    const labels = { unsolved: "solved by none", lost: `lost by the ${table.dataset.rule}`, never: "never proposed" };
    this.labels = { ...labels, differing: "differs between models" };
    this.addControls(document.getElementById(`controls-${table.id}`));
    this.panel = new TaskPanel(document.getElementById(`panel-${table.id}`), this.data, () => this.chosenModels());
    makeSortable(table);
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (!event.target.closest("a")) this.open(row);
    });
    this.update();
  }

  get rows() {
    return [...this.table.tBodies[0].rows];
  }

  addControls(place) {
    const fieldset = element("fieldset", {}, element("legend", { textContent: "Show tasks" }));
    this.counts = {};
    for (const state of Object.keys(FILTERS)) {
      const input = element("input", { type: "radio", name: this.group, value: state, checked: state === "all" });
      input.addEventListener("change", () => this.filter(state));
      this.counts[state] = element("span");
      fieldset.append(element("label", {}, input, ` ${this.labels[state] ?? state} `, this.counts[state]));
    }
    this.shown = element("output");
    const sides = element("fieldset", {}, element("legend", { textContent: "Side by side" }));
    const names = this.data.models;
    this.sides = ["left", "right"].map((side, place) => {
      const options = names.map((name, index) => element("option", { value: String(index), textContent: name }));
      const select = element("select", {}, ...options);
      if (place === 1) select.prepend(element("option", { value: "", textContent: "none" }));
      select.value = place === 0 ? "0" : names.length > 1 ? "1" : "";
      select.addEventListener("change", () => this.update());
      sides.append(element("label", {}, `${side} `, select));
      return select;
    });
    this.only = element("input", { type: "checkbox" });
    this.only.addEventListener("change", () => this.update());
    if (names.length > 2) sides.append(element("label", {}, this.only, " only these two in table and filters"));
    const keys = "Keys: j next task, k previous task, c copy its link, Escape close.";
    fieldset.append(this.shown);
    place.replaceChildren(fieldset, sides, element("p", { className: "keys", textContent: keys }));
  }

  chosenModels() {
    return this.sides.map((select) => (select.value === "" ? null : Number(select.value)));
  }

  // Return the indices of the models in the table and in the filters.
  countedModels() {
    const chosen = this.chosenModels().filter((index) => index !== null);
    return this.only.checked ? chosen : this.data.models.map((_, index) => index);
  }

  filter(state) {
    this.state = state;
    for (const input of document.getElementsByName(this.group)) input.checked = input.value === state;
    this.update();
  }

  // Show the rows and columns that were asked for, and the open task.
  update() {
    const models = this.countedModels();
    const states = (row) => models.map((index) => row.cells[2 + index].dataset.state);
    for (const row of [...this.table.tHead.rows, ...this.rows]) {
      [...row.cells].slice(2).forEach((cell, index) => { cell.hidden = !models.includes(index); });
    }
    this.rows.forEach((row) => { row.hidden = !FILTERS[this.state](states(row)); });
    for (const [state, label] of Object.entries(this.counts)) {
      label.textContent = `(${this.rows.filter((row) => FILTERS[state](states(row))).length})`;
    }
    this.shown.textContent = `${this.rows.filter((row) => !row.hidden).length} of ${this.rows.length} tasks`;
    if (this.current) this.draw();
  }

  open(row) {
    this.current?.removeAttribute("aria-current");
    this.current = row;
    if (row.hidden) this.filter("all");
    row.setAttribute("aria-current", "true");
    this.table.parentElement.classList.add("opened");
    row.scrollIntoView({ block: "nearest" });
    history.replaceState(null, "", `#${row.id}`);
    this.draw();
  }

  draw() {
    this.panel.show(this.current, {
      "previous (k)": () => this.move(-1),
      "next (j)": () => this.move(1),
      "copy link (c)": () => this.copy(),
      "close (Esc)": () => this.close(),
    });
  }

  close() {
    this.current?.removeAttribute("aria-current");
    this.current = null;
    this.table.parentElement.classList.remove("opened");
    this.panel.hide();
  }

  // Open the next visible task in this direction; the first or last one if none is open.
  move(step) {
    const visible = this.rows.filter((row) => !row.hidden || row === this.current);
    const at = visible.indexOf(this.current);
    const row = visible[at === -1 ? (step > 0 ? 0 : visible.length - 1) : at + step];
    if (row) this.open(row);
  }

  copy() {
    if (this.current) this.panel.copy(location.href);
  }
}

const tables = [...document.querySelectorAll("table[data-tasks]")].map((table) => new TaskTable(table));

// Open the task to which the address leads.
function openAddress() {
  const row = document.getElementById(location.hash.slice(1));
  const owner = row && tables.find(({ table }) => table.contains(row));
  if (!owner) return;
  owner.open(row);
  owner.table.parentElement.scrollIntoView({ block: "start" });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("select, textarea, input[type=text]");
  if (event.ctrlKey || event.altKey || event.metaKey || (typing && event.key !== "Escape")) return;
  const owner = tables.find(({ current }) => current) ?? tables[0];
  const actions = {
    j: () => owner.move(1), k: () => owner.move(-1), c: () => owner.copy(), Escape: () => owner.close(),
  };
  if (owner && Object.hasOwn(actions, event.key)) actions[event.key]();
});
window.addEventListener("hashchange", openAddress);
openAddress();
