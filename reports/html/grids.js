// Draw grids as SVG. A grid is a text of digits, its rows joined by "/".
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const BOX = 170; // Pixels into which a grid is fitted; longer single rows get more.
const LONG_BOX = 560;

function svgElement(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// Return the number of cells in which a grid differs from another, or null if their shapes differ.
function countDifferences(grid, truth) {
  const [rows, expected] = [grid.split("/"), truth.split("/")];
  if (rows.length !== expected.length || rows[0].length !== expected[0].length) return null;
  return rows.reduce((sum, row, i) => sum + [...row].filter((cell, j) => cell !== expected[i][j]).length, 0);
}

// Return ✓ for an exact grid, else ✗ with its shape or its number of wrong cells; nothing if the exact one is unknown.
function markOf(grid, truth) {
  if (truth === null) return "";
  if (grid === truth) return " ✓";
  const count = countDifferences(grid, truth);
  if (count !== null) return ` ✗ ${count} cell${count === 1 ? "" : "s"}`;
  const rows = grid.split("/");
  return ` ✗ ${rows.length}×${rows[0].length}`;
}

// Return a figure with a grid and its caption. Cells that differ from `truth` are outlined.
function drawGrid(grid, caption, colours, truth = null) {
  const figure = element("figure");
  if (grid === null) {
    figure.append(element("figcaption", { textContent: `${caption}: unknown` }));
    return figure;
  }
  const rows = grid.split("/");
  const [height, width] = [rows.length, rows[0].length];
  const longest = Math.max(height, width);
  const cell = Math.min(20, Math.floor((100 * (longest > 30 ? LONG_BOX : BOX)) / longest) / 100);
  const svg = svgElement("svg", {
    role: "img", "aria-label": `${caption}, ${height} by ${width}`, width: cell * width, height: cell * height,
    viewBox: `0 0 ${width} ${height}`,
  });
  const expected = truth === null || countDifferences(grid, truth) === null ? null : truth.split("/");
  const wrong = [];
  rows.forEach((row, y) => {
    [...row].forEach((digit, x) => {
      svgElement("rect", { x, y, width: 1, height: 1, fill: colours[Number(digit)], class: "cell" }, svg);
      if (expected !== null && expected[y][x] !== digit) wrong.push([x, y]);
    });
  });
  for (const [x, y] of wrong) {
    svgElement("rect", { x: x + 0.1, y: y + 0.1, width: 0.8, height: 0.8, class: "wrong-below" }, svg);
    svgElement("rect", { x: x + 0.1, y: y + 0.1, width: 0.8, height: 0.8, class: "wrong" }, svg);
  }
  if (truth !== null && expected === null) figure.classList.add("other-shape");
  if (grid === truth) figure.classList.add("exact");
  figure.append(svg, element("figcaption", { textContent: caption }));
  return figure;
}
