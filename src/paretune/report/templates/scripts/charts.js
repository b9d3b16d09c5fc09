// The front plots and the cost plots, drawn by Plotly from the part's data.
const layout = (x, y) => ({
  autosize: true,
  margin: { l: 58, r: 14, t: 12, b: 50 },
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("text") },
  hoverlabel: { align: "left", bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("text"), size: 13 } },
  hovermode: "closest", showlegend: false, dragmode: "zoom",
  xaxis: { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true, ...x },
  yaxis: { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true, ...y },
});
const config = { displaylogo: false, responsive: true, displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"] };
const draw = (element, traces, shape) => window.Plotly.react(element, traces, shape, config);

const range = (values, zoomed, corner) => {
  const lowest = Math.min(...values, ...(zoomed ? [] : [corner]));
  const highest = Math.max(...values, ...(zoomed ? [] : [corner]));
  const room = 0.06 * (highest - lowest || 1);
  return [lowest - room, highest + room];
};
const bars = (triples, tint) => ({
  type: "data", symmetric: false, thickness: 1, width: 3, color: tint,
  array: triples.map(([value, , high]) => (high === null ? 0 : high - value)),
  arrayminus: triples.map(([value, low]) => (low === null ? 0 : value - low)),
});
const staircase = (pairs, corner) => { // outline of everything some point is at least as good as, down to the corner
  const inside = pairs.filter(([x, y]) => x > corner[0] && y > corner[1]).sort((a, b) => b[0] - a[0] || b[1] - a[1]);
  if (!inside.length) return [[], []];
  const xs = [inside[0][0]], ys = [corner[1]];
  let height = corner[1];
  for (const [x, y] of inside) {
    if (y <= height) continue;
    xs.push(x, x); ys.push(height, y); height = y;
  }
  xs.push(corner[0]); ys.push(height);
  return [xs, ys];
};

const within = (ends, values) => { // ends of bars count up to one span beyond the points: a wide interval must not hide them
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 0.1;
  return ends.map((end) => Math.max(low - span, Math.min(high + span, end)));
};

const drawPair = (element, front, a, b, options) => {
  const traces = [], xs = [], ys = [], endsX = [], endsY = [];
  const corner = [front.reference[a], front.reference[b]];
  front.methods.forEach((method, index) => {
    if (hiddenMethods.has(method.name)) return;
    const points = front.points.filter((point) => point.method === index);
    if (!points.length) return;
    const x = points.map((point) => point.scores[a]), y = points.map((point) => point.scores[b]);
    xs.push(...x.map((each) => each[0])); ys.push(...y.map((each) => each[0]));
    if (options.intervals) {
      endsX.push(...x.flatMap((each) => (each[1] === null ? [] : [each[1], each[2]])));
      endsY.push(...y.flatMap((each) => (each[1] === null ? [] : [each[1], each[2]])));
    }
    const [stepX, stepY] = staircase(points.map((point, i) => [x[i][0], y[i][0]]), corner);
    traces.push({ type: "scatter", mode: "lines", x: stepX, y: stepY, hoverinfo: "skip", opacity: 0.75,
      line: { color: method.colour, width: 1.5, dash: method.ceiling ? "dash" : "solid" } });
    const tint = method.colour + (dark() ? "b0" : "59");
    traces.push({
      type: "scatter", mode: "markers", name: plain(method.name), x: x.map((each) => each[0]), y: y.map((each) => each[0]),
      error_x: options.intervals ? bars(x, tint) : undefined, error_y: options.intervals ? bars(y, tint) : undefined,
      marker: { size: 10, symbol: points.map((point) => method.marker + (point.unseen ? "-open" : "")), color: method.colour,
        line: { width: points.map((point) => (point.unseen ? 2 : 1)), color: points.map((point) => (point.unseen ? method.colour : colour("surface"))) } },
      hovertemplate: "%{text}<extra></extra>",
      text: points.map((point) => [
        `<b>${plain(method.name)}</b>, ${plain(point.preference)}${point.unseen ? " (unseen)" : ""}`,
        ...front.objectives.map((name, k) => `${plain(name)}: ${interval(point.scores[k])}`),
        `utility: ${interval(point.utility)}`, `answer: ${plain(point.answer)}; KL ${number(point.kl)} nats; seeds: ${point.seeds}`,
      ].join("<br>")),
    });
  });
  if (front.base) {
    xs.push(front.base[a][0]); ys.push(front.base[b][0]);
    traces.push({ type: "scatter", mode: "markers+text", x: [front.base[a][0]], y: [front.base[b][0]], text: ["base"],
      textposition: "bottom center", textfont: { color: colour("muted"), size: 12 },
      marker: { symbol: "star", size: 14, color: colour("base"), line: { width: 1, color: colour("surface") } },
      hovertemplate: ["<b>base model</b>", ...front.objectives.map((name, k) => `${plain(name)}: ${interval(front.base[k])}`)].join("<br>") + "<extra></extra>" });
  }
  traces.push({ type: "scatter", mode: "markers+text", x: [corner[0]], y: [corner[1]], text: ["reference point"],
    textposition: "top right", textfont: { color: colour("muted"), size: 12 },
    marker: { symbol: "x-thin", size: 10, line: { width: 2, color: colour("muted") } },
    hovertemplate: `<b>reference point</b><br>${number(corner[0])}, ${number(corner[1])}<extra></extra>` });
  if (!xs.length) { xs.push(corner[0] + 1); ys.push(corner[1] + 1); }
  xs.push(...within(endsX, xs)); ys.push(...within(endsY, ys));
  const shape = layout(
    { title: { text: `${plain(front.objectives[a])}: mean reward, better →`, font: { size: 13 } }, range: range(xs, options.zoom, corner[0]), zeroline: false },
    { title: { text: `${plain(front.objectives[b])}: mean reward, better →`, font: { size: 13 } }, range: range(ys, options.zoom, corner[1]), zeroline: false });
  draw(element, traces, shape);
};

const drawFront = (index) => {
  const box = byId(`front-${index}`), front = parts[index].front;
  if (!box) return;
  const chosen = byId(`pair-${index}`).value;
  const options = { zoom: byId(`zoom-${index}`).checked, intervals: byId(`bars-${index}`).checked };
  box.classList.toggle("three", chosen === "all" && front.objectives.length > 2);
  all(".plot", box).forEach((plot) => {
    plot.hidden = chosen !== "all" && plot.dataset.pair !== chosen;
    if (plot.hidden) return;
    const [a, b] = plot.dataset.pair.split("-").map(Number);
    drawPair(plot.querySelector(".canvas"), front, a, b, options);
  });
};

const drawCosts = (index) => {
  const { front, costs, judged } = parts[index];
  const panels = [
    ["completions", [["completions", ""]], "completions, cheaper ←"],
    ["seconds", [["sum", ""], ["chain", "-open"]], "seconds, cheaper ←"],
    ["speed", [["speed", ""]], "times the base model's, faster →"],
  ];
  for (const [panel, series, title] of panels) {
    const element = byId(`cost-${panel}-${index}`);
    if (!element) continue;
    const traces = [], xs = [0], ys = [];
    if (panel === "speed") xs.push(1);
    costs.forEach((cost, m) => {
      const method = front.methods[m];
      if (method.ceiling || hiddenMethods.has(method.name) || cost.score[0] === null) return; // a ceiling is charged nothing
      const drawn = series.filter(([key]) => cost[key] !== null);
      if (!drawn.length) return;
      xs.push(...drawn.map(([key]) => cost[key]));
      ys.push(...cost.score.filter((each) => each !== null));
      traces.push({
        type: "scatter", mode: drawn.length > 1 ? "lines+markers" : "markers", x: drawn.map(([key]) => cost[key]),
        y: drawn.map(() => cost.score[0]), error_y: bars(drawn.map(() => cost.score), method.colour + (dark() ? "c0" : "80")),
        line: { color: method.colour, width: 1.5, dash: "dot" },
        marker: { size: 12, color: method.colour, symbol: drawn.map(([, open]) => method.marker + open), line: { width: drawn.map(([, open]) => (open ? 2 : 1)), color: drawn.map(([, open]) => (open ? method.colour : colour("surface"))) } },
        text: drawn.map(([key]) => `<b>${plain(method.name)}</b><br>${({ completions: "completions", sum: "seconds, all stages", chain: "seconds, longest chain", speed: "times the base model's speed" })[key]}: ${number(cost[key])}<br>${judged}: ${interval(cost.score)}`),
        hovertemplate: "%{text}<extra></extra>",
      });
    });
    const shape = layout(
      { title: { text: title, font: { size: 13 } }, range: [0, 1.12 * Math.max(...xs, 1e-9)] },
      { title: { text: `${judged}, better →`, font: { size: 13 } }, range: ys.length ? range(ys, true, 0) : undefined });
    if (panel === "speed") shape.shapes = [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: colour("muted"), width: 1, dash: "dash" } }];
    draw(element, traces, shape);
  }
};

const lineOf = (method, dashed) => ({ color: method.colour, width: 2, dash: dashed ? "dash" : "solid" });
const baseline = (y, text) => ({ shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: colour("muted"), width: 1, dash: "dot" } }],
  annotations: [{ xref: "paper", x: 1, y, text, showarrow: false, xanchor: "right", yanchor: "bottom", font: { size: 12, color: colour("muted") } }] });
const direct = { showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } };

const drawPossible = () => study.panels.forEach((panel, index) => {
  const element = byId(`possible-${index}`);
  if (!element) return;
  const traces = panel.methods.filter((method) => !hiddenMethods.has(method.name)).map((method) => {
    const points = method.points.filter((point) => point[1] !== null);
    const values = points.map((point) => point.slice(1));
    return { type: "scatter", mode: "lines+markers", name: plain(method.name) + (method.ceiling ? " (ceiling)" : ""),
      x: points.map((point) => point[0] + method.shift), y: values.map((value) => value[0]), error_y: bars(values, method.colour + (dark() ? "c0" : "80")),
      customdata: points.map((point) => point[0]), line: lineOf(method, method.ceiling), marker: { size: 10, symbol: method.marker, color: method.colour },
      text: values.map((value) => `<b>${plain(method.name)}</b><br>captured share: ${interval(value)}`),
      hovertemplate: "%{text}<br>rho %{customdata}<extra></extra>" };
  });
  const ends = panel.methods.flatMap((method) => method.points.flatMap((point) => point.slice(1).filter((each) => each !== null)));
  const shape = layout(
    { title: { text: "rho, correlation of the objectives: competing ← → agreeing", font: { size: 13 } }, zeroline: false,
      tickvals: [...new Set(panel.methods.flatMap((method) => method.points.map((point) => point[0])))] },
    { title: { text: "captured share, better →", font: { size: 13 } }, zeroline: false,
      range: [Math.max(panel.limits[0], Math.min(-0.05, ...ends) - 0.03), Math.min(panel.limits[1], Math.max(1.05, ...ends) + 0.05)] });
  const one = baseline(1, "the best policies"), zero = baseline(0, "base model");
  draw(element, traces, { ...shape, ...direct, shapes: [...one.shapes, ...zero.shapes], annotations: [...one.annotations, ...zero.annotations] });
});

const drawKl = (index) => {
  const element = byId(`kl-${index}`), { kl, front } = parts[index];
  if (!element || !kl) return;
  const traces = [];
  for (const curve of kl.curves) {
    const method = front.methods[curve.method];
    if (hiddenMethods.has(method.name)) continue;
    const told = (value, more) => `<b>${plain(method.name)}</b>${more}<br>utility: ${interval(value)}`;
    traces.push({ type: "scatter", mode: "lines+markers", name: plain(method.name) + (method.ceiling ? " (ceiling)" : ""), x: curve.kl,
      y: curve.utility.map((value) => value[0]), error_y: bars(curve.utility, method.colour + (dark() ? "90" : "50")),
      line: lineOf(method, method.ceiling), marker: { size: curve.kl.map((_, i) => (i === curve.kl.length - 1 ? 11 : 6)), symbol: method.marker, color: method.colour },
      text: curve.utility.map((value) => told(value, "")), hovertemplate: "%{text}<br>KL: %{x:.3f} nats<extra></extra>" });
    if (curve.others.length) traces.push({ type: "scatter", mode: "markers", showlegend: false, x: curve.others.map((each) => each[1]), y: curve.others.map((each) => each[2]),
      marker: { size: 10, symbol: method.marker + "-open", color: method.colour, line: { width: 2 } },
      text: curve.others.map((each) => told(each.slice(2), `, ${number(each[0])} completions`)), hovertemplate: "%{text}<br>KL: %{x:.3f} nats<extra></extra>" });
  }
  if (kl.optimum) traces.push({ type: "scatter", mode: "markers", name: "the best policies", x: [kl.optimum[0]], y: [kl.optimum[1]],
    marker: { size: 14, symbol: "star", color: colour("text") }, hovertemplate: "the best policies<br>utility: %{y:.3f}<br>KL: %{x:.3f} nats<extra></extra>" });
  const shape = layout(
    { title: { text: "KL to the base model, nats, nearer ←", font: { size: 13 } }, rangemode: "tozero" },
    { title: { text: "utility, mean over preferences, better →", font: { size: 13 } } });
  draw(element, traces, { ...shape, ...direct });
};

const drawProfiles = () => study.profiles.forEach((profile, index) => {
  const element = byId(`profile-${index}`);
  if (!element) return;
  const traces = profile.methods.filter((method) => !hiddenMethods.has(method.name)).flatMap((method) => [
    { type: "scatter", mode: "lines", x: method.thresholds, y: method.low, line: { width: 0, shape: "hv" }, hoverinfo: "skip", showlegend: false },
    { type: "scatter", mode: "lines", x: method.thresholds, y: method.high, line: { width: 0, shape: "hv" }, fill: "tonexty", fillcolor: method.colour + "26", hoverinfo: "skip", showlegend: false },
    { type: "scatter", mode: "lines", name: plain(method.name), x: method.thresholds, y: method.share, line: { color: method.colour, width: 2, shape: "hv" },
      hovertemplate: `<b>${plain(method.name)}</b><br>above %{x:.3f}: %{y:.0%}<extra></extra>` },
  ]);
  const shape = layout(
    { title: { text: `${plain(profile.score)} of a run`, font: { size: 13 } } },
    { title: { text: "share of runs above, better →", font: { size: 13 } }, range: [-0.02, 1.02] });
  draw(element, traces, { ...shape, ...direct });
});
