"use strict";
(() => {
  const D = JSON.parse(document.getElementById("numbers").textContent);
  const $ = (id) => document.getElementById(id);
  const narrow = matchMedia("(max-width: 40rem)").matches;
  // A finger that starts on a figure still scrolls the page.
  const touch = matchMedia("(pointer: coarse)").matches;

  // Okabe and Ito's colours, which the colour-blind tell apart; dashes and marks say the same once more.
  const BLUE = "#0072B2", RED = "#D55E00", GREY = "#999999";
  const STYLES = [
    { color: BLUE, dash: "solid", symbol: "circle" },
    { color: "#E69F00", dash: "dash", symbol: "square" },
    { color: "#009E73", dash: "dot", symbol: "diamond" },
    { color: "#CC79A7", dash: "dashdot", symbol: "triangle-up" },
    { color: "#000000", dash: "longdash", symbol: "x" },
  ];
  const state = { sensor: 0, channel: 0, end: D.forecasts.origins.length };

  // Words -----------------------------------------------------------------------------------------
  const number = (value) => value === null || value === undefined ? "–"
    : value !== 0 && (Math.abs(value) >= 1e7 || Math.abs(value) < 1e-4) ? value.toExponential(3)
    : Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 8 });
  const percent = (value) => value === null ? "–" : `${(100 * value).toFixed(1)} %`;
  const many = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
  // Plotly reads some HTML in names.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const NAMES = D.sensors.map(plain);

  const element = (tag, text, parent, cls) => {
    const made = document.createElement(tag);
    if (text !== null) made.textContent = text;
    if (cls) made.className = cls;
    if (parent) parent.append(made);
    return made;
  };
  const fillList = (list, rows) => rows.forEach(([name, text]) => {
    element("dt", name, list);
    element("dd", text, list);
  });
  const fillTable = (table, head, rows) => {
    table.querySelectorAll("thead, tbody").forEach((part) => part.remove());
    const top = element("tr", null, element("thead", null, table));
    head.forEach((name) => { element("th", name, top).scope = "col"; });
    const body = element("tbody", null, table);
    rows.forEach((cells) => {
      const row = element("tr", null, body);
      cells.forEach((cell) => {
        const td = element("td", null, row);
        if (cell instanceof Node) td.append(cell);
        else if (Array.isArray(cell)) { td.textContent = cell[0]; if (cell[1]) td.className = "best"; }
        else td.textContent = cell;
      });
    });
  };
  const sensorButton = (sensor) => {
    const button = element("button", D.sensors[sensor], null, "link");
    button.type = "button";
    button.addEventListener("click", () => choose(sensor));
    return button;
  };
  const fillScores = (table, scores) => {
    // In the tables of scores a model is a column; on the page it is a row.
    const models = Object.keys(scores.columns);
    const rows = scores.index.map((metric, i) => {
      const values = models.map((model) => scores.columns[model][i]);
      const known = values.filter((value) => value !== null);
      const best = ["mae", "rmse", "mase"].includes(metric) && known.length > 1 ? Math.min(...known) : null;
      return values.map((value) => [number(value), best !== null && value === best]);
    });
    fillTable(table, ["model", ...scores.index], models.map((model, m) => [model, ...rows.map((row) => row[m])]));
  };

  // Figures ---------------------------------------------------------------------------------------
  // These buttons alone: one of the others sends the figure to a server.
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover", plotlyServerURL: "",
    showSendToCloud: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const layout = (more) => ({
    margin: { l: 56, r: 12, t: touch ? 12 : 32, b: 44 }, hovermode: "closest", showlegend: true,
    font: { family: "system-ui, sans-serif", size: 13, color: "#1a1a1a" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", dragmode: touch ? false : "zoom", ...more,
    xaxis: { gridcolor: "#e6e6e6", zeroline: false, automargin: true, fixedrange: touch, ...(more.xaxis || {}) },
    yaxis: { gridcolor: "#e6e6e6", zeroline: false, automargin: true, fixedrange: touch, ...(more.yaxis || {}) },
  });
  const draw = (id, traces, more) => Plotly.react(id, traces, layout(more), CONFIG);
  const onClick = (id, sensorOf) => $(id).on("plotly_click", (event) => {
    const sensor = sensorOf(event.points[0]);
    if (Number.isInteger(sensor)) choose(sensor);
  });
  const lines = (id, table, title, ticks) => draw(id,
    Object.keys(table.columns).map((model, i) => {
      const style = STYLES[i % STYLES.length];
      return { name: model, x: ticks || table.index, y: table.columns[model], mode: "lines+markers",
        line: { color: style.color, dash: style.dash, width: i ? 1.5 : 3 },
        marker: { symbol: style.symbol, size: i ? 6 : 7, color: style.color },
        hovertemplate: `${model}: %{y:.4~g}<extra></extra>` };
    }),
    { hovermode: "x unified", xaxis: { title: { text: title }, type: ticks ? "category" : "linear" },
      yaxis: { title: { text: "MAE" }, rangemode: "tozero" } });

  function drawReadings() {
    const { sensor: s, channel: c } = state, P = D.panel, own = P.statistics;
    $("statistics").textContent = `Mean ${number(own.mean[c][s])}, from ${number(own.min[c][s])} to ` +
      `${number(own.max[c][s])}; ${percent(own.missing[c][s])} missing.`;
    const traces = [{ name: "reading, mean of each stretch", x: P.times, y: P.means[c][s], mode: "lines",
      line: { color: "#000", width: 1.2 }, hovertemplate: "%{x}<br>%{y:.4~g}<extra></extra>" }];
    const missing = P.missing && P.missing[c][s];
    if (missing && missing.some((share) => share > 0)) {
      traces.push({ name: "share missing", x: P.times, y: missing, yaxis: "y2", type: "bar",
        marker: { color: RED, opacity: 0.6 }, hovertemplate: "%{x}<br>%{y:.1%} missing<extra></extra>" });
    }
    draw("plot-readings", traces, { bargap: 0, yaxis2: { overlaying: "y", side: "right", range: [0, 1],
      tickformat: ".0%", showgrid: false, fixedrange: true } });
  }

  function drawGaps() {
    const P = D.panel;
    $("gaps").hidden = P.missing === null;
    if (P.missing === null) return;
    const n = D.sensors.length;
    $("plot-gaps").style.height = `${Math.max(180, Math.min(520, 110 + 16 * n))}px`;
    const names = NAMES.map((name) => Array(P.times.length).fill(name));
    draw("plot-gaps", [{ type: "heatmap", x: P.times, y: n > 40 ? undefined : NAMES, text: names,
      z: P.missing[state.channel], zmin: 0, zmax: 1, colorscale: "Viridis", reversescale: true,
      colorbar: { title: { text: "missing" }, tickformat: ".0%", thickness: 12 },
      hovertemplate: "%{text}<br>%{x}<br>%{z:.1%} missing<extra></extra>" }],
      { yaxis: { type: n > 40 ? "linear" : "category", title: { text: n > 40 ? "sensor, in order" : "" },
        autorange: "reversed" } });
  }

  function drawForecast() {
    const F = D.forecasts, { sensor: s, channel: c } = state, h = F.horizon;
    const width = Number($("span").value) || F.origins.length;
    state.end = Math.max(Math.min(width, F.origins.length), Math.min(state.end, F.origins.length));
    const start = Math.max(0, state.end - width);
    const skipped = F.windows - F.origins.length;
    $("shown").textContent = `Windows ${skipped + start + 1} to ${skipped + state.end} of ${F.windows}` +
      (skipped ? ` (the first ${skipped} count in the errors, and are not kept in this file)` : "");
    $("earlier").disabled = start === 0;
    $("later").disabled = state.end >= F.origins.length;
    const traces = [], q = F.levels.length;
    for (let k = 0; k < Math.floor(q / 2); k++) {
      const low = F.quantiles[k][c][s], high = F.quantiles[q - 1 - k][c][s], x = [], y = [];
      for (let w = start; w < state.end; w++) {
        for (let i = 0; i < h; i++) { x.push(F.times[F.origins[w] + 1 + i]); y.push(high[w * h + i]); }
        for (let i = h - 1; i >= 0; i--) { x.push(F.times[F.origins[w] + 1 + i]); y.push(low[w * h + i]); }
        x.push(null); y.push(null);
      }
      const share = Math.round(1000 * (F.levels[q - 1 - k] - F.levels[k])) / 10;
      traces.push({ name: `${share} % interval`, x, y, mode: "lines", fill: "toself", line: { width: 0 },
        fillcolor: "rgba(86, 180, 233, 0.4)", hoverinfo: "skip" });
    }
    const x = [], y = [], text = [];
    for (let w = start; w < state.end; w++) {
      for (let i = 0; i < h; i++) {
        const at = w * h + i;
        x.push(F.times[F.origins[w] + 1 + i]);
        y.push(F.mean[c][s][at]);
        const ends = q > 1 ? ` (${number(F.quantiles[0][c][s][at])} to ${number(F.quantiles[q - 1][c][s][at])})` : "";
        text.push(`forecast ${number(F.mean[c][s][at])}${ends}, ${many(i + 1, "step")} ahead`);
      }
      x.push(null); y.push(null); text.push("");
    }
    const from = Math.max(0, F.origins[start] - Math.max(h, 12) + 1), to = F.origins[state.end - 1] + h + 1;
    const truth = F.truth[c][s].slice(from, to);
    traces.push({ name: "reading", x: F.times.slice(from, to), y: truth, mode: "lines+markers",
      line: { color: "#000", width: 1.5 }, marker: { size: 3, color: "#000" }, hovertemplate: "reading %{y:.4~g}<extra></extra>" });
    traces.push({ name: "forecast", x, y, text, mode: "lines+markers", line: { color: BLUE, width: 2.5 },
      marker: { size: 4, color: BLUE }, hovertemplate: "%{text}<extra></extra>" });
    draw("plot-forecast", traces, { hovermode: "x unified",
      yaxis: { title: { text: plain(D.channels.length > 1 ? D.channels[c] : "reading") } } });
  }

  function drawSensors() {
    const T = D.by_sensor, models = Object.keys(T.columns), s = state.sensor;
    $("sensor-errors").textContent = `MAE at ${D.sensors[s]}: ` +
      models.map((model) => `${model} ${number(T.columns[model][s])}`).join(", ") + ".";
    const own = T.columns[OWN_MODEL];
    const order = own.map((_, i) => i).filter((i) => own[i] !== null).sort((a, b) => own[b] - own[a]);
    const rank = order.indexOf(s), few = order.length <= 30;
    const known = order.map((i) => own[i]).filter((value) => value > 0);
    const wide = known.length > 1 && known[0] > 20 * known[known.length - 1];
    const traces = models.map((model, m) => {
      const style = STYLES[m % STYLES.length];
      return { name: model, x: order.map((_, i) => i), y: order.map((i) => T.columns[model][i]), mode: "markers",
        customdata: order, text: order.map((i) => NAMES[i]), opacity: m ? 0.75 : 1,
        marker: { color: style.color, symbol: style.symbol, size: few ? 9 : m ? 4 : 6 },
        hovertemplate: `%{text}<br>${model}: %{y:.4~g}<extra></extra>` };
    }).reverse();
    const shapes = rank < 0 ? [] : [{ type: "line", x0: rank, x1: rank, yref: "paper", y0: 0, y1: 1,
      line: { color: GREY, width: few ? 18 : 3 }, opacity: few ? 0.25 : 0.7, layer: "below" }];
    draw("plot-sensor", traces, { shapes,
      xaxis: few ? { tickvals: order.map((_, i) => i), ticktext: order.map((i) => NAMES[i]) }
        : { title: { text: "sensors, from the largest error" } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "reversed" },
      yaxis: { title: { text: "MAE" }, type: wide ? "log" : "linear", rangemode: "tozero" } });
  }

  // Degrees of longitude are shorter than those of latitude.
  const xs = D.graph.x, ys = D.graph.y;
  const degrees = D.graph.on_map && xs.every((x) => Math.abs(x) <= 180) && ys.every((y) => Math.abs(y) <= 90);
  const ratio = degrees ? 1 / Math.max(0.05, Math.cos(Math.PI / 360 * (Math.min(...ys) + Math.max(...ys)))) : 1;
  const mapAxes = { xaxis: { visible: false }, yaxis: { visible: false, scaleanchor: "x", scaleratio: ratio },
    margin: { l: 4, r: 4, t: touch ? 4 : 36, b: 4 }, dragmode: touch ? false : "pan" };
  // A phone's width is for the map.
  const bar = (title, more) => ({ title: { text: title }, thickness: 12, ...more,
    ...(narrow ? { orientation: "h", x: 0.5, xanchor: "center", y: 0, yanchor: "top" } : {}) });

  function drawMap() {
    $("error-map").hidden = !D.graph.on_map;
    if (!D.graph.on_map) return;
    const T = D.by_sensor, own = T.columns[OWN_MODEL], kind = $("colour").value;
    let values, marker, unit = ".4~g";
    if (kind === "mae") {
      values = own;
      marker = { colorscale: "Viridis", reversescale: true, colorbar: bar("MAE") };
      const sorted = own.filter((value) => value !== null).sort((a, b) => a - b);
      marker.cmin = sorted[0]; marker.cmax = sorted[Math.floor(0.98 * (sorted.length - 1))];
    } else if (kind === "coverage") {
      values = D.reliability.by_sensor;
      unit = ".1%";
      marker = { colorscale: "Viridis", reversescale: true, colorbar: bar("coverage", { tickformat: ".0%" }) };
    } else {
      // Blue where the network is better, brown where the baseline is.
      values = own.map((value, i) => value === null || !(T.columns[kind][i] > 0) ? null : value / T.columns[kind][i] - 1);
      unit = "+.1%";
      marker = { cmin: -0.5, cmax: 0.5, colorscale: [[0, "#053061"], [0.25, "#4393c3"], [0.5, "#f2f2f2"],
        [0.75, "#d6824e"], [1, "#7f3b08"]], colorbar: bar(`MAE against<br>${plain(kind)}`, { tickformat: "+.0%" }) };
    }
    const shown = values.map((value, i) => i).filter((i) => values[i] !== null);
    const size = D.sensors.length > 200 ? 8 : 12, s = state.sensor;
    const ring = { x: [xs[s]], y: [ys[s]], mode: "markers", hoverinfo: "skip",
      marker: { symbol: "circle-open", size: size + 10, color: "#000", line: { width: 3 } } };
    draw("plot-map", [{ x: shown.map((i) => xs[i]), y: shown.map((i) => ys[i]), mode: "markers", customdata: shown,
      text: shown.map((i) => NAMES[i]), marker: { size, color: shown.map((i) => values[i]), line: { width: 1, color: "#555" }, ...marker },
      hovertemplate: `%{text}<br>%{marker.color:${unit}}<extra></extra>` }, ring], { ...mapAxes, showlegend: false });
  }

  function drawReliability() {
    const R = D.reliability, s = state.sensor;
    $("inside").textContent = R.levels.length < 2 || R.inside === null ? "" :
      `${percent(R.inside)} of the readings are within the intervals that are to hold ${percent(R.expected)}; of ` +
      `${D.sensors[s]}, ${percent(R.by_sensor[s])}.`;
    // A share that is the other, too, unless readings are often just the quantile.
    const tied = R.levels.some((_, i) => R.at_or_below[i] - R.below[i] > 0.005);
    $("tied").hidden = !tied;
    draw("plot-reliability", [
      { name: "as it is to be", x: [0, 1], y: [0, 1], mode: "lines", line: { color: GREY, dash: "dash" }, hoverinfo: "skip" },
      ...[["below", "below", "circle"], ["at or below", "at_or_below", "circle-open"]].slice(tied ? 0 : 1).map(([words, key, symbol], i) => (
        { name: tied ? `readings ${words}` : OWN_MODEL, x: R.levels, y: R[key], mode: "lines+markers", fill: i ? "tonexty" : "none",
          fillcolor: "rgba(86, 180, 233, 0.3)", line: { color: BLUE, width: 2.5 }, marker: { size: 7, color: BLUE, symbol },
          hovertemplate: `%{y:.1%} of the readings are ${words}<br>the quantile of level %{x:.4~g}<extra></extra>` }))],
      { xaxis: { title: { text: "level of the quantile" }, range: [0, 1] },
        yaxis: { title: { text: "share of the readings below" }, range: [0, 1] } });
  }

  // The graph -------------------------------------------------------------------------------------
  const G = D.graph, total = G.weight.length;
  // The slider goes through the number of edges: weights are far from even.
  const countAt = (place) => Math.max(Math.min(1, total), Math.round(total * (1 - place / 100) ** 2));
  const placeOf = (count) => Math.max(0, Math.min(100, Math.round(100 * (1 - Math.sqrt(count / Math.max(1, total))))));
  const strength = D.sensors.map(() => 0);
  G.source.forEach((source, e) => { strength[source] += G.weight[e]; });
  const strongest = Math.max(...strength, 1e-9);

  // All edges of the chosen sensor are shown, and of the others those with at least the chosen weight.
  function shownEdges() {
    const least = total ? G.weight[countAt(Number($("weight").value)) - 1] : 0;
    let count = 0;
    while (count < total && G.weight[count] >= least) count++;
    const mine = G.source.filter((source, e) => e >= count && (source === state.sensor || G.target[e] === state.sensor));
    const more = mine.length ? `, and ${mine.length} more of ${D.sensors[state.sensor]}` : "";
    const text = total ? `${number(least)}: ${many(count, "edge")} of ${G.total.toLocaleString("en")}${more}` : "There is no edge.";
    $("edges").textContent = text;
    $("weight").setAttribute("aria-valuetext", text);
    return count;
  }

  function drawGraph() {
    const s = state.sensor, count = shownEdges(), alone = $("alone").checked, few = D.sensors.length <= 40;
    const groups = { other: [], source: [], target: [] };
    for (let e = 0; e < total; e++) {
      const group = G.target[e] === s ? "source" : G.source[e] === s ? "target" : "other";
      if (group !== "other" || (e < count && !alone)) groups[group].push(e);
    }
    const traces = [], top = G.weight[0] || 1, thin = Math.min(1, Math.max(0.3, Math.sqrt(60 / count)));
    // Bent to their right, so that the two edges of a pair lie apart; many are straight, which is faster.
    const bend = count > 3000 && !alone ? 0 : 0.07;
    const place = (e, t) => {
      const [x, y] = [xs[G.source[e]], ys[G.source[e]]];
      const [dx, dy] = [xs[G.target[e]] - x, ratio * (ys[G.target[e]] - y)];
      const aside = 4 * bend * t * (1 - t);
      return [x + t * dx + aside * dy, y + (t * dy - aside * dx) / ratio];
    };
    const addLines = (edges, color, width, opacity) => {
      if (!edges.length) return;
      const x = [], y = [], steps = bend ? (count > 300 ? 6 : 12) : 1;
      edges.forEach((e) => {
        for (let i = 0; i <= steps; i++) {
          const [px, py] = place(e, i / steps);
          x.push(px); y.push(py);
        }
        x.push(null); y.push(null);
      });
      traces.push({ x, y, mode: "lines", line: { color, width }, opacity, hoverinfo: "skip" });
    };
    const addArrows = (edges, color, size) => {
      if (!edges.length) return;
      const at = edges.map((e) => place(e, 0.6)), ahead = edges.map((e) => place(e, 0.61));
      const label = (e) => `${NAMES[G.source[e]]} → ${NAMES[G.target[e]]}<br>weight ${number(G.weight[e])}` +
        (G.p_value ? `<br>p-value ${number(G.p_value[e])}` : "");
      traces.push({ x: at.map((point) => point[0]), y: at.map((point) => point[1]), mode: "markers", text: edges.map(label),
        marker: { symbol: "triangle-up", size, color, angle: at.map(([x, y], i) =>
          180 / Math.PI * Math.atan2(ahead[i][0] - x, ratio * (ahead[i][1] - y))) },
        hovertemplate: "%{text}<extra></extra>" });
    };
    // Three widths: one path each.
    [[0, 0.25, 0.7], [0.25, 0.6, 1.6], [0.6, 1.01, 3]].forEach(([low, high, width]) => {
      const within = (e) => G.weight[e] >= low * top && G.weight[e] < high * top;
      addLines(groups.other.filter(within), GREY, width * thin, few ? 0.7 : 0.5);
    });
    if (groups.other.length <= 3000) addArrows(groups.other, "#777", few ? 9 : 5);
    addLines(groups.source, BLUE, 2.5, 1);
    addLines(groups.target, RED, 2.5, 1);
    addArrows(groups.source, BLUE, 11);
    addArrows(groups.target, RED, 11);
    const role = D.sensors.map(() => "other");
    groups.target.forEach((e) => { role[G.target[e]] = "target"; });
    groups.source.forEach((e) => { role[G.source[e]] = role[G.source[e]] === "target" ? "both" : "source"; });
    role[s] = "chosen";
    const looks = { other: ["#bbb", "circle"], target: [RED, "square"], source: [BLUE, "circle"], both: ["#CC79A7", "triangle-up"], chosen: ["#000", "diamond"] };
    const base = few ? 10 : D.sensors.length > 200 ? 4 : 6;
    Object.keys(looks).forEach((kind) => {
      const nodes = role.map((_, i) => i).filter((i) => role[i] === kind);
      const named = few || (kind !== "other" && nodes.length <= 12);
      traces.push({ x: nodes.map((i) => xs[i]), y: nodes.map((i) => ys[i]), customdata: nodes, text: nodes.map((i) => NAMES[i]),
        mode: named ? "markers+text" : "markers", textposition: "top center", name: kind,
        marker: { color: looks[kind][0], symbol: looks[kind][1], line: { width: 1, color: "#444" },
          size: nodes.map((i) => (kind === "other" ? 0 : 5) + base + (few ? 10 : 8) * Math.sqrt(strength[i] / strongest)) },
        hovertext: nodes.map((i) => `${NAMES[i]}<br>others listen to it with ${number(strength[i])} in all`),
        hovertemplate: "%{hovertext}<extra></extra>" });
    });
    draw("plot-graph", traces, { ...mapAxes, showlegend: false,
      xaxis: { visible: false, range: padded(xs) } , yaxis: { ...mapAxes.yaxis, range: padded(ys) } });

    const head = ["sensor", "weight", ...(G.p_value ? ["p-value"] : [])];
    const fill = (id, mine, other) => {
      const edges = mine.map((end, e) => e).filter((e) => mine[e] === s);
      fillTable($(id), head, edges.map((e) => [sensorButton(other[e]), number(G.weight[e]),
        ...(G.p_value ? [number(G.p_value[e])] : [])]));
      if (!edges.length) fillTable($(id), ["no one"], []);
    };
    fill("sources", G.target, G.source);
    fill("targets", G.source, G.target);
  }
  function padded(values) {
    const low = Math.min(...values), high = Math.max(...values), room = 0.06 * (high - low) || 1;
    return [low - room, high + room];
  }

  // What is chosen --------------------------------------------------------------------------------
  const OWN_MODEL = Object.keys(D.by_sensor.columns)[0];
  function redraw() {
    document.querySelectorAll(".chosen").forEach((span) => { span.textContent = D.sensors[state.sensor]; });
    $("previous").disabled = state.sensor === 0;
    $("next").disabled = state.sensor === D.sensors.length - 1;
    drawReadings(); drawForecast(); drawSensors(); drawMap(); drawReliability(); drawGraph();
  }
  function choose(sensor) {
    state.sensor = sensor;
    $("sensor").value = String(sensor);
    redraw();
  }

  const option = (select, value, text) => { element("option", text, select).value = String(value); };
  D.sensors.forEach((name, i) => option($("sensor"), i, name));
  D.channels.forEach((name, i) => option($("channel"), i, name));
  $("channel-label").hidden = D.channels.length < 2;
  const windows = D.forecasts.origins.length;
  [3, 10, 30].filter((count) => count < windows).forEach((count) => option($("span"), count, `${count} windows`));
  option($("span"), windows, windows === 1 ? "the window" : `all ${windows} windows`);
  if (windows > 10) $("span").value = narrow ? "3" : "10";
  option($("colour"), "mae", "MAE of the network");
  Object.keys(D.by_sensor.columns).slice(1).forEach((model) => option($("colour"), model, `MAE against ${model}`));
  if (D.reliability.levels.length > 1) option($("colour"), "coverage", "coverage of the interval");
  $("weight").value = String(placeOf(total <= 100 ? total : Math.max(100, Math.min(1000, 2 * D.sensors.length))));
  $("laid").textContent = (G.on_map ? "" : "Without positions, sensors that listen to each other lie near each other. ") +
    (G.total > total ? `This file holds the ${total.toLocaleString("en")} strongest edges.` : "");

  $("verdict").textContent = D.verdict;
  $("test").textContent = D.test;
  fillList($("summary"), D.panel.summary);
  (D.panel.found.length ? D.panel.found : ["Nothing to mend."]).forEach((text) => element("li", text, $("found")));
  fillScores($("scores"), D.scores);
  fillScores($("validation"), D.validation);
  fillList($("card-rows"), D.card);
  lines("plot-step", D.by_step, "steps ahead");
  const WORDS = { hour: "By hour of the day", weekday: "By day of the week", month: "By month" };
  const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
  $("time-title").textContent = WORDS[D.by_time.name];
  lines("plot-time", D.by_time, D.by_time.name, D.by_time.name === "weekday" ? D.by_time.index.map((day) => DAYS[day]) : null);
  drawGaps();
  redraw();

  $("sensor").addEventListener("change", (event) => choose(Number(event.target.value)));
  $("channel").addEventListener("change", (event) => { state.channel = Number(event.target.value); drawGaps(); redraw(); });
  $("previous").addEventListener("click", () => choose(state.sensor - 1));
  $("next").addEventListener("click", () => choose(state.sensor + 1));
  $("span").addEventListener("change", () => drawForecast());
  const move = (by) => { state.end += by * Number($("span").value); drawForecast(); };
  $("earlier").addEventListener("click", () => move(-1));
  $("later").addEventListener("click", () => move(1));
  $("colour").addEventListener("change", drawMap);
  $("weight").addEventListener("input", drawGraph);
  $("alone").addEventListener("change", drawGraph);
  $("all").addEventListener("toggle", () => {
    const models = Object.keys(D.by_sensor.columns), table = $("all").querySelector("table");
    if (!$("all").open || table.rows.length) return;
    const own = D.by_sensor.columns[OWN_MODEL];
    const order = own.map((_, i) => i).sort((a, b) => (own[b] ?? -1) - (own[a] ?? -1));
    fillTable(table, ["sensor", ...models.map((model) => `MAE ${model}`), "in the interval", "missing"],
      order.map((i) => [sensorButton(i), ...models.map((model) => number(D.by_sensor.columns[model][i])),
        percent(D.reliability.by_sensor[i]), percent(D.panel.statistics.missing[0][i])]));
  });
  document.querySelector(".bar").addEventListener("submit", (event) => event.preventDefault());
  onClick("plot-sensor", (point) => point.customdata);
  onClick("plot-graph", (point) => point.customdata);
  if (D.graph.on_map) onClick("plot-map", (point) => point.customdata);
  document.documentElement.dataset.ready = "yes";
})();
