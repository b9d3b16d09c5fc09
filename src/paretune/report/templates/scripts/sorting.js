// Tables whose column heads are buttons sort by them; the metrics table can also be narrowed down.
const sortable = (table) => all("thead th", table).forEach((head, column) => {
  const button = head.querySelector("button");
  if (!button) return;
  button.addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).sort((one, two) => {
      const [a, b] = [key(one), key(two)];
      if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1; // what is missing stays last
      const [x, y] = [Number(a), Number(b)];
      return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en") : x - y);
    });
    body.append(...rows);
  });
});
const filterMetrics = (index) => {
  const chosen = byId(`metric-${index}`).value, detail = byId(`detail-${index}`).checked;
  all(`#metrics-${index} tbody tr`).forEach((row) => {
    row.hidden = (chosen !== "" && row.dataset.metric !== chosen) || (row.hasAttribute("data-detail") && !detail);
  });
};
