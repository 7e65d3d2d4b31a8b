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
    const pairs = element("div", { className: "pairs" }, ...task.train.map((pair, i) => this.drawPair(pair, `train ${i + 1}`)));
    const tests = task.test.map((test, i) => this.drawTest(test, task.test.length > 1 ? `test ${i + 1}` : "test", row));
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
    return element("div", { className: "pair" }, element("strong", { textContent: title }), element("div", { className: "grids" }, ...grids));
  }

  drawTest(test, title, row) {
    const sides = this.models().filter((index) => index !== null).map((index) => this.drawModel(index, test, row));
    return element("div", { className: "test" }, this.drawPair(test.pair, title), element("div", { className: "sides" }, ...sides));
  }

  // Return the attempts of one model: with votes, and what is wrong with each.
  drawModel(index, test, row) {
    const { n, top, exact } = test.models[index];
    const truth = test.pair[1];
    const grids = top.map(([grid, votes], k) => {
      const differing = truth === null ? null : countDifferences(grid, truth);
      const size = `${grid.split("/").length}×${grid.split("/")[0].length}`;
      const verdict = truth === null ? "" : grid === truth ? " ✓" : differing === null ? ` ✗ ${size}` : ` ✗ ${differing} cell${differing === 1 ? "" : "s"}`;
      return drawGrid(grid, `attempt ${k + 1}: ${votes} of ${n}${verdict}`, this.data.colours, truth);
    });
    const state = row.cells[2 + index].dataset.state;
    const rank = exact === null ? "the exact grid was never proposed" : `the exact grid ranks ${exact[0]} with ${exact[1]} of ${n}`;
    const line = truth === null ? "" : `${{ solved: "solved", lost: "not solved", never: "not solved" }[state]}; ${rank}`;
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
