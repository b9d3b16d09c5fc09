// What all scripts of the page share. They are joined into one, in the order that page.py names.
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
const read = (element) => JSON.parse(element.textContent);
const islands = (name) => Object.fromEntries(all(`script.${name}`).map((each) => [each.dataset.for, read(each)]));
const root = document.documentElement;

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
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const current = () => (byId("part") ? byId("part").value : "0");
const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
