// Fills the heat map with differences to the chosen baseline.
const fillHeat = (index) => {
  const table = byId(`heat-${index}`), select = byId(`baseline-${index}`);
  if (!table || !select) return;
  const map = parts[index].heat[Number(select.value)];
  all("tbody tr", table).forEach((row, m) => {
    const values = [...map.rows[m], map.averages[m]];
    all("td", row).forEach((cell, column) => {
      const [value, low, high, seeds] = values[column];
      const average = column === values.length - 1 ? " average" : "";
      cell.replaceChildren();
      cell.style.removeProperty("--strength");
      if (parts[index].front.methods[m].name === map.baseline) { cell.className = "absent" + average; cell.textContent = "baseline"; return; }
      if (value === null) { cell.className = "absent" + average; cell.textContent = "none"; return; }
      const clear = low !== null && (low > 0 || high < 0);
      cell.className = (value < 0 ? "below" : "above") + (clear ? "" : " unclear") + average;
      cell.style.setProperty("--strength", `${Math.min(62, 62 * Math.abs(value) / (map.scale || 1)).toFixed(1)}%`);
      cell.append(make("b", "", number(value, true)), make("small", "", low === null ? "no interval" : `[${number(low)}, ${number(high)}]`));
      cell.title = `${interval([value, low, high], true)}; seeds: ${seeds}; ${clear ? "the interval excludes 0" : "not distinguishable from 0"}`;
    });
  });
  all(`.scale-${index}`).forEach((each) => { each.textContent = number(map.scale); });
  byId(`heat-status-${index}`).textContent = `Differences to: ${map.baseline}`;
};
