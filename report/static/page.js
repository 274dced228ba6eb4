"use strict";
// What the page does beyond being read: sort, choose, hide columns, copy, and follow the runs that go on. All of its
// state stands in the address, which the server understands, too.
(() => {
  const holder = document.getElementById("data");
  if (!holder) return;
  document.documentElement.classList.add("script");
  const $ = id => document.getElementById(id);
  let data = JSON.parse(holder.textContent);
  const chosen = new Set([...document.querySelectorAll("input[name=run]:checked")].map(i => i.value));
  const curves = {};
  const mostCurves = 12;

  const tell = text => { $("told").textContent = text; };
  const compared = () => data.runs.filter(r => !chosen.size || chosen.has(r.id));
  const running = () => data.runs.filter(r => r.metering === "running");

  function draw() {
    Charts.all(compared(), data.experiments, data.size, pick);
    Charts.live(data.live ? running().slice(0, mostCurves) : [], curves);
    $("clear").hidden = !chosen.size;
  }

  // address changes the address without asking for the page, and the links that follow it.
  function address(change) {
    if (!data.live) return;
    const url = new URL(location);
    change(url.searchParams);
    history.replaceState(null, "", url);
    $("csv").href = "runs.csv" + url.search;
    const json = new URL($("json").href);
    const query = new URLSearchParams(url.search);
    query.delete("experiment");
    json.search = query;
    $("json").href = json;
  }

  // choose puts what is chosen into the lines, the address and the charts; the sums are the server's.
  let waiting;
  function choose() {
    for (const row of document.querySelectorAll("#runs tbody tr")) {
      const on = chosen.has(row.dataset.run);
      row.classList.toggle("chosen", on);
      row.querySelector("input").checked = on;
    }
    address(query => { query.delete("run"); for (const id of chosen) query.append("run", id); });
    draw();
    clearTimeout(waiting);
    if (data.live) waiting = setTimeout(() => refresh(["summary", "totals"]), 300);
  }

  function pick(id) {
    chosen.has(id) ? chosen.delete(id) : chosen.add(id);
    choose();
    const row = document.querySelector(`#runs tr[data-run="${CSS.escape(id)}"]`);
    if (row) row.scrollIntoView({ block: "nearest" });
  }

  function sortBy(key) {
    const head = document.querySelector(`#runs thead th[data-key="${CSS.escape(key)}"]`);
    const numbers = head.classList.contains("number"), first = numbers ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? (numbers ? "ascending" : "descending") : first;
    for (const th of document.querySelectorAll("#runs thead th[aria-sort]")) th.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1;
    const body = document.querySelector("#runs tbody");
    const rows = [...body.rows].map(row => {
      const cell = row.querySelector(`[data-key="${CSS.escape(key)}"]`);
      return { row, value: numbers ? (cell.dataset.order === "" ? null : Number(cell.dataset.order)) : cell.textContent.trim().toLowerCase() };
    });
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null); // last, either way
      return sign * (a.value < b.value ? -1 : a.value > b.value ? 1 : 0);
    });
    body.append(...rows.map(r => r.row));
    const value = (order === "descending" ? "-" : "") + key;
    const field = document.querySelector("input[name=sort]");
    if (field) field.value = value;
    address(query => query.set("sort", value));
    tell("Sorted by " + head.textContent.trim() + ", " + order);
  }

  function columns() {
    const on = [...document.querySelectorAll("#columns input")].filter(i => i.checked).map(i => i.value);
    for (const cell of document.querySelectorAll("#runs [data-key]")) {
      if (cell.dataset.key !== "name") cell.hidden = !on.includes(cell.dataset.key);
    }
    address(query => { query.delete("col"); for (const key of on) query.append("col", key); });
  }

  // copy puts the visible table on the clipboard, as a spreadsheet takes it.
  async function copy() {
    const lines = [...document.querySelectorAll("#runs tr")].filter(row => row.parentElement.tagName === "THEAD" || !chosen.size || chosen.has(row.dataset.run)).map(row =>
      [...row.cells].filter(c => !c.hidden && !c.classList.contains("check")).map(c => {
        const text = c.textContent.replace(/\s+/g, " ").trim();
        return /^[=+@]/.test(text) ? "'" + text : text; // no formula
      }).join("\t"));
    const text = lines.join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no clipboard for pages that come by plain http from elsewhere
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    tell(lines.length - 1 + (lines.length === 2 ? " run copied" : " runs copied"));
  }

  // refresh asks for the page again and takes the named parts of it over.
  async function refresh(parts) {
    const res = await fetch(location.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await res.text(), "text/html");
    if (!res.ok || !page.getElementById("data")) throw new Error(page.querySelector("#fault p")?.textContent || "HTTP " + res.status);
    for (const id of parts) $(id).replaceWith(document.adoptNode(page.getElementById(id)));
    if (parts.includes("runs")) data = JSON.parse(page.getElementById("data").textContent);
  }

  function show(row, key, value) {
    const cell = row && row.querySelector(`td[data-key="${key}"]`);
    if (!cell || typeof value !== "number") return;
    const scale = Number(document.querySelector(`#runs thead th[data-key="${key}"]`).dataset.scale);
    const text = Charts.plain(value / scale), point = text.includes("×") ? -1 : text.indexOf("."), rest = cell.querySelector("span");
    cell.dataset.order = value;
    if (rest && point >= 0) {
      rest.textContent = text.slice(point);
      cell.firstChild.data = text.slice(0, point);
    } else cell.textContent = text;
  }

  async function curve(id) {
    const query = new URLSearchParams(location.search), workspace = query.get("workspace");
    const res = await fetch("api/runs/" + encodeURIComponent(id) + "/curve" + (workspace ? "?workspace=" + encodeURIComponent(workspace) : ""));
    if (res.ok) curves[id] = await res.json();
  }

  // follow asks for the runs that go on, and for the whole page when others do than before.
  async function follow() {
    const here = new URLSearchParams(location.search), query = new URLSearchParams({ running: "1" });
    for (const name of ["filter", "workspace"]) if (here.get(name)) query.set(name, here.get(name));
    const now = (await Promise.all(here.getAll("experiment").map(async id => {
      const res = await fetch("api/experiments/" + encodeURIComponent(id) + "/runs?" + query);
      if (!res.ok) throw new Error((await res.json()).message);
      return (await res.json()).runs;
    }))).flat();
    const before = new Map(running().map(r => [r.id, r]));
    if (now.length !== before.size || now.some(r => !before.has(r.run_id))) {
      const ended = [...before.values()].filter(r => !now.some(n => n.run_id === r.id));
      await refresh(["summary", "runs", "totals"]);
      tell(ended.length ? "Ended: " + ended.map(r => r.name).join(", ") : "A run began");
    }
    const shown = running().slice(0, mostCurves);
    await Promise.all(shown.map(async r => {
      const latest = now.find(n => n.run_id === r.id);
      if (!latest) return;
      if (!curves[r.id] || latest.emissions_g !== r.emissions) await curve(r.id);
      r.emissions = latest.emissions_g;
      const row = document.querySelector(`#runs tr[data-run="${CSS.escape(r.id)}"]`);
      show(row, "emissions_g", latest.emissions_g);
    }));
    draw();
  }

  const every = 5000, longest = 60000; // ms
  let pause = every, turn = 0;
  async function keepFollowing() {
    if (!document.hidden) {
      try {
        await follow();
        if (++turn % 6 === 0 && running().length) await refresh(["summary", "totals"]); // which ask for all runs
        if (pause > every) tell("");
        pause = every;
      } catch (fault) {
        pause = Math.min(2 * pause, longest);
        tell("Not up to date: " + (fault.message || "the server cannot be reached"));
      }
    }
    setTimeout(keepFollowing, pause);
  }

  document.addEventListener("change", e => {
    if (e.target.name === "run") {
      e.target.checked ? chosen.add(e.target.value) : chosen.delete(e.target.value);
      choose();
    } else if (e.target.name === "col") columns();
    else if (e.target.name === "size") $("choice").submit();
  });
  document.addEventListener("click", e => {
    const head = e.target.closest("#runs thead a");
    if (head && !e.ctrlKey && !e.metaKey && !e.shiftKey) {
      e.preventDefault();
      sortBy(head.closest("th").dataset.key);
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(e.target)) menu.open = false;
  });
  document.addEventListener("keydown", e => {
    if (e.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  });
  $("copy").hidden = false;
  $("copy").addEventListener("click", copy);
  $("clear").addEventListener("click", () => { chosen.clear(); choose(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  if (data.live) keepFollowing();
})();
