// The panel that shows one task: its pairs, and the attempts of two models side by side.

class TaskPanel {
  constructor(place, data, models) {
    this.data = data;
    this.models = models; // Returns the indices of the left and the right model; null for none.
    this.root = element("section", { className: "panel", hidden: true });
    this.root.setAttribute("aria-label", "The chosen task");
    this.status = element("output");
    place.replaceChildren(this.root);
  }

  // Show the task of a table row. `actions` are the functions of the buttons, by label.
  show(row, actions) {
    const task = this.data.tasks[Number(row.dataset.place)];
    const name = row.cells[0].dataset.value;
    const buttons = Object.entries(actions).map(([label, action]) => {
      const button = element("button", { type: "button", textContent: label });
      button.addEventListener("click", action);
      return button;
    });
    this.status.textContent = "";
    const heading = element("h4", { textContent: `Task ${name}`, ariaLive: "polite" });
    const head = element("div", { className: "panel-head" }, heading, ...buttons, this.status);
    const train = task.train.map((pair, i) => this.drawPair(pair, `train ${i + 1}`));
    const pairs = element("div", { className: "pairs" }, ...train);
    const several = task.test.length > 1;
    const tests = task.test.map((test, i) => this.drawTest(test, several ? `test ${i + 1}` : "test", row, several));
    this.root.replaceChildren(head, pairs, ...tests);
    this.root.hidden = false;
  }

  hide() {
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  drawPair([source, target], title) {
    const arrow = element("span", { textContent: "→", ariaHidden: "true" });
    const grids = [drawGrid(source, "input", this.data.colours), arrow, drawGrid(target, "output", this.data.colours)];
    const heading = element("strong", { textContent: title });
    return element("div", { className: "pair" }, heading, element("div", { className: "grids" }, ...grids));
  }

  drawTest(test, title, row, several) {
    const chosen = this.models().filter((index) => index !== null);
    const sides = chosen.map((index) => this.drawModel(index, test, row.cells[2 + index].dataset.state, several));
    const pair = this.drawPair(test.pair, title);
    return element("div", { className: "test" }, pair, element("div", { className: "sides" }, ...sides));
  }

  // Return the attempts of one model: with votes, and what is wrong with each.
  drawModel(index, test, state, several) {
    const { n, top, exact } = test.models[index];
    const truth = test.pair[1];
    const grids = top.map(([grid, votes], k) => {
      const caption = `attempt ${k + 1}: ${votes} of ${n}${markOf(grid, truth)}`;
      return drawGrid(grid, caption, this.data.colours, truth);
    });
    const exactGrid = several ? "the exact grid of this output" : "the exact grid";
    const rank = exact === null ? "was never proposed" : `ranks ${exact[0]} with ${exact[1]} of ${n}`;
    const verdict = `${several ? "task " : ""}${state === "solved" ? "solved" : "not solved"}`;
    const line = truth === null ? "" : `${verdict}; ${exactGrid} ${rank}`;
    const side = element("div", { className: "side" }, element("strong", { textContent: this.data.models[index] }));
    side.append(element("p", { textContent: line }), element("div", { className: "grids" }, ...grids));
    if (!top.length) side.append(element("p", { textContent: `no grid in ${n} predictions` }));
    return side;
  }

  // Copy a link; where the browser does not allow that, show it selected, so that it can be copied by hand.
  async copy(url) {
    try {
      await navigator.clipboard.writeText(url);
      this.status.replaceChildren("link copied");
    } catch {
      const field = element("input", { type: "text", readOnly: true, value: url, ariaLabel: "Link to this task" });
      this.status.replaceChildren(field);
      field.select();
    }
  }
}
