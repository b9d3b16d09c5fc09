// Tables of results can be sorted by a column, and kept as CSV.
const valueOf = (text) => { const match = /^[+−-]?[\d,.]+(e−?\d+)?/.exec(text); return match ? Number(match[0].replace(/−/g, "-").replace(/,/g, "")) : NaN; };
const sortBy = (table, head, column) => {
  const direction = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
  all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1, key = (row) => row.cells[column].textContent.trim();
  table.tBodies[0].append(...Array.from(table.tBodies[0].rows).sort((one, two) => {
    const [a, b] = [key(one), key(two)];
    if (a === "–" || b === "–") return a === b ? 0 : a === "–" ? 1 : -1; // what is missing stays last
    const [x, y] = [valueOf(a), valueOf(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en") : x - y);
  }));
};
const save = (name, text, type) => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const numeric = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i; // as tables.py: a text that a spreadsheet would run gets a mark before it, a number stays one
const guarded = (text) => (/^[=+\-@\t\r\n＝＋－＠]/.test(text) && !numeric.test(text) ? `'${text}` : text);
const csv = (table) => all("tr", table).map((row) => Array.from(row.cells).map((cell) => {
  const text = cell.textContent.trim().replace(/\s+/g, " ");
  return `"${guarded(text).replace(/"/g, '""')}"`;
}).join(",")).join("\n");
const sortable = (table) => {
  all("thead th", table).forEach((head, column) => {
    const button = make("button", "", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, head, column));
  });
  const keep = make("button", "csv", "CSV");
  keep.type = "button";
  keep.setAttribute("aria-label", `Save as CSV: ${table.getAttribute("aria-label")}`);
  keep.addEventListener("click", () => save("table.csv", csv(table), "text/csv"));
  table.closest(".tabled").querySelector(".caption").append(" ", keep);
};
