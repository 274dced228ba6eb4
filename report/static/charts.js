"use strict";
// The charts of the page and of the one-file report, drawn by ECharts from what stands in the page as JSON. All texts are
// drawn on canvases, so nothing that others wrote into runs becomes markup.
const Charts = (() => {
  const masses = [["ng", 1e-9], ["µg", 1e-6], ["mg", 1e-3], ["g", 1], ["kg", 1e3], ["t", 1e6]];
  const energies = [["µWh", 1e-9], ["mWh", 1e-6], ["Wh", 1e-3], ["kWh", 1], ["MWh", 1e3], ["GWh", 1e6]];
  const counts = [["", 1], ["k", 1e3], ["M", 1e6], ["G", 1e9]];
  const known = v => typeof v === "number";
  const drawn = {};

  // plain writes a number with three digits, as the server does.
  function plain(v) {
    const a = Math.abs(v);
    if (a === 0) return "0";
    if (a < 1e-4 || a >= 1e9) {
      const [mantissa, exponent] = v.toExponential(2).split("e");
      return mantissa + "×10" + exponent.replace("+", "").replace(/[-\d]/g, c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
    }
    const rounded = Number(a.toPrecision(3));
    const [whole, fraction] = v.toFixed(Math.max(0, 2 - Math.floor(Math.log10(rounded)))).replace("-", "−").split(".");
    const grouped = whole.length > 4 ? whole.replace(/(\d)(?=(\d{3})+$)/g, "$1\u202f") : whole;
    return fraction ? grouped + "." + fraction : grouped;
  }

  function fitting(units, v) {
    for (let i = units.length - 1; i > 0; i--) if (Math.abs(v) >= units[i][1] * (1 - 5e-4)) return units[i];
    return units[0];
  }

  function inUnit(units, v) {
    if (!known(v)) return "–";
    if (v === 0) return "0";
    const [name, scale] = fitting(units, v);
    return (plain(v / scale) + " " + name).trim();
  }
  const mass = v => inUnit(masses, v);

  // tick writes a round number on an axis, without the zeros behind it.
  function tick(units, v) {
    if (v === 0) return "0";
    const [name, scale] = fitting(units, v);
    return (Number((v / scale).toPrecision(6)) + " " + name).replace("-", "−");
  }

  const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const palette = () => ["blue", "orange", "green", "red", "purple", "sky"].map(color);
  const short = (s, n) => s.length > n ? s.slice(0, n - 1) + "…" : s;
  // ECharts takes braces in a label for its own markup.
  const isolated = s => "\u2068" + s.replaceAll("{", "(").replaceAll("}", ")").replaceAll("|", "/") + "\u2069";

  function base() {
    const text = { color: color("ink"), fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 };
    return {
      animation: false, textStyle: text, color: palette(),
      tooltip: { renderMode: "richText", confine: true, backgroundColor: color("paper"), borderColor: color("strong"), borderWidth: 1, padding: [8, 12], textStyle: { ...text, lineHeight: 18 } },
    };
  }

  function axis(more) {
    return {
      axisLine: { lineStyle: { color: color("strong") } }, axisTick: { show: false },
      axisLabel: { color: color("soft"), fontSize: 12, hideOverlap: true },
      nameTextStyle: { color: color("soft"), fontSize: 12 },
      splitLine: { lineStyle: { color: color("line") } }, minorSplitLine: { show: false }, ...more,
    };
  }

  function draw(id, option, label, height) {
    const el = document.getElementById(id);
    el.classList.remove("none");
    if (!drawn[id] || drawn[id].getDom() !== el) {
      el.textContent = "";
      drawn[id] = echarts.init(el, null, { renderer: "canvas" });
    }
    if (height) el.style.height = height + "px";
    drawn[id].resize();
    drawn[id].setOption({ ...base(), ...option }, true);
    el.setAttribute("aria-label", label);
    return drawn[id];
  }

  function nothing(id, why) {
    const el = document.getElementById(id);
    if (drawn[id]) drawn[id].dispose();
    delete drawn[id];
    el.textContent = why;
    el.classList.add("none");
    el.setAttribute("aria-label", why);
    el.style.height = "";
  }

  // front returns those that no other beats: none is at least as accurate for less. What is not wholly measured beats nobody.
  function front(runs) {
    let best = -Infinity;
    return runs.filter(r => r.metering === "measured")
      .sort((a, b) => a.emissions - b.emissions || b.accuracy - a.accuracy)
      .filter(r => r.accuracy > best && (best = r.accuracy, true));
  }

  const hollow = r => r.metering !== "measured";

  function tip(r, size) {
    const lines = [short(r.name, 60)];
    if (r.experiment) lines.push(short(r.experiment, 60));
    lines.push("accuracy " + (known(r.accuracy) ? plain(r.accuracy) + " %" : "–"));
    lines.push("emissions " + (hollow(r) ? "at least " : "") + mass(r.emissions) + (known(r.high) && known(r.low) ? "  (" + mass(r.low) + " to " + mass(r.high) + ")" : ""));
    if (size && known(r.size)) lines.push(short(size, 40) + " " + inUnit(counts, r.size));
    if (hollow(r)) lines.push(r.metering);
    return lines.map(isolated).join("\n");
  }

  function accuracy(runs, experiments, size, onPick) {
    const id = "chart-accuracy", points = runs.filter(r => known(r.accuracy) && known(r.emissions) && r.emissions > 0);
    if (!points.length) return nothing(id, "No run has both an accuracy and emissions yet.");
    const least = Math.min(...points.map(r => r.emissions)), largest = Math.max(...points.map(r => r.emissions));
    const biggest = Math.max(0, ...points.map(r => r.size || 0));
    const best = front(points), onFront = new Set(best.map(r => r.id));
    const wide = largest > 30 * least, narrow = document.getElementById(id).clientWidth < 520;
    const scale = fitting(masses, largest);
    const groups = experiments.length > 1 ? experiments : [""], colors = palette();
    const radius = r => known(r.size) && biggest ? 5 + (narrow ? 18 : 27) * Math.sqrt(r.size / biggest) : biggest ? 4 : 8;
    const series = groups.map((group, i) => ({
      type: "scatter", name: group || "Runs",
      // Large ones first, so that small ones lie on top.
      data: points.filter(r => (r.experiment || "") === group).sort((a, b) => radius(b) - radius(a)).map(r => ({
        value: [r.emissions, r.accuracy], run: r, symbolSize: 2 * radius(r),
        itemStyle: hollow(r)
          ? { color: "transparent", borderColor: colors[i % colors.length], borderWidth: 2, borderType: "dashed" }
          : { color: colors[i % colors.length] + "a0", borderColor: color("paper"), borderWidth: 1 }, // translucent: they overlap
        label: { show: onFront.has(r.id) || points.length <= 12 },
      })),
      label: { position: "top", distance: 4, color: color("ink"), fontSize: 12, formatter: p => isolated(short(p.data.run.name, narrow ? 18 : 28)) },
      labelLayout: { hideOverlap: true },
      emphasis: { scale: 1.06, label: { show: true } },
    }));
    series.push({
      type: "line", name: "Pareto front", step: "end", symbol: "none", silent: true, tooltip: { show: false }, z: 1,
      data: best.map(r => [r.emissions, r.accuracy]), lineStyle: { color: color("red"), width: 1.5 }, itemStyle: { color: color("red") },
    });
    const chart = draw(id, {
      grid: { left: 12, right: 28, top: narrow ? 60 : 40, bottom: 30, containLabel: true },
      legend: { right: 12, top: 0, itemWidth: 18, icon: groups.length > 1 ? "circle" : undefined, type: "scroll", textStyle: { color: color("soft") }, formatter: n => isolated(short(n, 32)), data: [...(groups.length > 1 ? groups : []), { name: "Pareto front", icon: "rect", itemStyle: { color: color("red") } }] },
      xAxis: axis({
        type: wide ? "log" : "value", scale: true, ...(wide ? { min: least / 1.6, max: largest * 1.6 } : { boundaryGap: ["7%", "7%"] }), name: wide ? "emissions, logarithmic" : "emissions in " + scale[0], nameLocation: "middle", nameGap: 28,
        axisLabel: { ...axis().axisLabel, showMinLabel: !wide, showMaxLabel: !wide, formatter: v => wide ? tick(masses, v) : String(Number((v / scale[1]).toPrecision(6))) },
      }),
      yAxis: axis({ type: "value", scale: true, boundaryGap: ["7%", "7%"], name: "accuracy in %", nameLocation: "end", nameGap: 14, nameTextStyle: { ...axis().nameTextStyle, align: "left" }, axisLine: { show: false } }),
      tooltip: { ...base().tooltip, trigger: "item", formatter: p => p.data.run ? tip(p.data.run, size) : "" },
      series,
    }, "Accuracy against emissions of " + points.length + (points.length === 1 ? " run" : " runs") + ", from " + mass(least) + " to " + mass(largest) +
      ". On the Pareto front: " + (best.map(r => short(r.name, 40)).join(", ") || "none") + ". The table of runs has the figures.");
    chart.off("click");
    chart.on("click", p => p.data && p.data.run && onPick(p.data.run.id));
  }

  function bars(id, note, runs, of, what, series, units) {
    const format = v => inUnit(units, v);
    const all = runs.filter(r => known(of(r)) && of(r) > 0).sort((a, b) => of(a) - of(b));
    if (!all.length) return nothing(id, what.none);
    const narrow = document.getElementById(id).clientWidth < 520, space = narrow ? 110 : 190;
    const most = narrow ? 20 : 40;
    const rows = what.highest ? all.slice(-most).reverse() : all.slice(0, most);
    document.getElementById(note).textContent = all.length > most ? "the " + most + (what.highest ? " highest of " : " lowest of ") + all.length : "";
    draw(id, {
      grid: { left: space, right: 64, top: series.length > 1 ? 30 : 6, bottom: 26 },
      legend: series.length > 1 ? { left: space, top: 0, itemWidth: 12, itemHeight: 12, icon: "roundRect", textStyle: { color: color("soft") } } : undefined,
      xAxis: axis({ type: "value", axisLabel: { ...axis().axisLabel, formatter: v => tick(units, v) }, splitNumber: narrow ? 3 : 5, axisLine: { show: false } }),
      yAxis: axis({
        type: "category", inverse: true, data: rows.map(r => r.id), splitLine: { show: false },
        axisLabel: { color: color("ink"), fontSize: 12, interval: 0, width: space - 14, overflow: "truncate", formatter: (_, i) => rows[i] ? isolated(short(rows[i].name, narrow ? 17 : 30)) : "" },
      }),
      tooltip: { ...base().tooltip, trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: color("line"), opacity: .4 } }, formatter: p => what.tip(rows[p[0].dataIndex]) },
      series: series.map((s, i) => ({
        type: "bar", name: s.name, stack: "all", barCategoryGap: "28%", barMaxWidth: 22, itemStyle: { color: color(s.color) },
        data: rows.map(r => ({ value: s.of(r) || 0, itemStyle: hollow(r) ? { color: "transparent", borderColor: color(s.color), borderWidth: 1.5, borderType: "dashed" } : undefined })),
        label: i === series.length - 1 ? { show: true, position: "right", color: color("soft"), fontSize: 12, formatter: p => format(of(rows[p.dataIndex])) } : undefined,
      })),
    }, what.label + " of " + rows.length + (rows.length === 1 ? " run" : " runs") + ": from " + rows.slice(0, 1).map(r => short(r.name, 40) + " with " + format(of(r))) +
      " to " + rows.slice(-1).map(r => short(r.name, 40) + " with " + format(of(r))) + ". The table of runs has the figures.", (series.length > 1 ? 56 : 32) + 24 * Math.max(rows.length, 3));
  }

  function predictions(runs) {
    bars("chart-predictions", "note-predictions", runs, r => known(r.per10) ? r.per10 * 1000 : null, {
      none: "No run has an inference phase with a known number of predictions yet.", label: "Emissions of 10,000 predictions",
      tip: r => [short(r.name, 60), mass(r.per10 * 1000) + " for 10,000 predictions" + (known(r.per10low) && known(r.per10high) ? "  (" + mass(r.per10low * 1000) + " to " + mass(r.per10high * 1000) + ")" : ""), "accuracy " + (known(r.accuracy) ? plain(r.accuracy) + " %" : "–")].map(isolated).join("\n"),
    }, [{ name: "10,000 predictions", color: "blue", of: r => r.per10 * 1000 }], masses);
  }

  function energy(runs) {
    const format = v => inUnit(energies, v);
    bars("chart-energy", "note-energy", runs, r => [r.cpu, r.gpu, r.ram].some(known) ? (r.cpu || 0) + (r.gpu || 0) + (r.ram || 0) : null, {
      highest: true, none: "No energy is known yet.", label: "Energy by component",
      tip: r => [short(r.name, 60), "CPU " + format(r.cpu), "GPU " + format(r.gpu), "RAM " + format(r.ram)].map(isolated).join("\n"),
    }, [{ name: "CPU", color: "blue", of: r => r.cpu }, { name: "GPU", color: "green", of: r => r.gpu }, { name: "RAM", color: "orange", of: r => r.ram }]
      .filter(s => runs.some(r => known(s.of(r)))), energies);
  }

  // live draws curves: a map of a run's id to pairs of ms and grams.
  function live(runs, curves) {
    const shown = runs.filter(r => (curves[r.id] || []).length), figure = document.getElementById("figure-live");
    figure.hidden = !runs.length;
    if (!runs.length) return;
    if (!shown.length) return nothing("chart-live", (runs.length === 1 ? "1 run goes on" : runs.length + " runs go on") + "; nothing is logged of it yet.");
    draw("chart-live", {
      grid: { left: 12, right: 110, top: 16, bottom: 8, containLabel: true },
      xAxis: axis({ type: "time", splitLine: { show: false } }),
      yAxis: axis({ type: "value", axisLine: { show: false }, min: 0, axisLabel: { ...axis().axisLabel, formatter: v => tick(masses, v) } }),
      tooltip: { ...base().tooltip, trigger: "axis", formatter: ps => ps.map(p => isolated(short(p.seriesName, 40) + "  " + mass(p.value[1]))).join("\n") },
      series: shown.map((r, i) => ({
        id: r.id, type: "line", name: r.name, data: curves[r.id], symbol: "circle", symbolSize: 5, showSymbol: curves[r.id].length < 30, lineStyle: { width: 2, type: ["solid", "dashed", "dotted"][Math.floor(i / 6) % 3] },
        endLabel: { show: true, color: color("ink"), distance: 6, formatter: p => isolated(short(r.name, 14)) }, labelLayout: { moveOverlap: "shiftY" },
      })),
    }, "Emissions over time of " + shown.length + (shown.length === 1 ? " running run: " : " running runs: ") + shown.map(r => short(r.name, 40) + " " + mass(r.emissions)).join(", "));
  }

  addEventListener("resize", () => { for (const id in drawn) drawn[id].resize(); });
  return { plain, all(runs, experiments, size, onPick) { accuracy(runs, experiments, size, onPick); predictions(runs); energy(runs); }, live };
})();
