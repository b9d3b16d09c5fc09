// What all scripts of the page share. They are joined into one, in the order that page.py names.
const byId = (id) => document.getElementById(id);
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const parts = all("script.part-data").map((script) => JSON.parse(script.textContent));
const study = JSON.parse(byId("study-data").textContent);
const hiddenMethods = new Set();
const root = document.documentElement;
let printing = false;

const plain = (text) => // Plotly reads a little markup in labels; names are text, so none is let through
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const number = (value, signed = false) => { // the same rounding as wording.number
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const whole = size >= 10 && Number.isInteger(size);
  const decimals = whole || size >= 100 ? 0 : size < 1 ? 3 : size < 10 ? 2 : 1;
  const text = size.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  if (value < 0 && /[1-9]/.test(text)) return "−" + text;
  return signed ? "+" + text : text;
};
const interval = ([value, low, high], signed = false) =>
  low === null || low === undefined ? number(value, signed)
    : `${number(value, signed)} [${number(low, signed)}, ${number(high, signed)}]`;
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const current = () => Number(byId("part") ? byId("part").value : 0);
const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
