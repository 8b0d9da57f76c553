// Only for comfort: a line under the pointer with the time and the numbers at it. Everything can be read
// without. Written without the signs that mean something in HTML.
"use strict";
(() => {
  const readout = document.createElement("div");
  readout.className = "readout";
  readout.hidden = true;
  document.body.append(readout);
  const pad = (n) => String(n).padStart(2, "0");
  const clock = (ms) => {
    const s = Math.floor(ms / 1000);
    const h = Math.floor(s / 3600);
    const m = Math.floor(s / 60) % 60;
    const tenth = Math.floor((ms % 1000) / 100);
    return (h ? h + ":" + pad(m) : m) + ":" + pad(s % 60) + "." + tenth;
  };
  const micros = (us) => (us >= 1000 ? (us / 1000).toFixed(us >= 10000 ? 0 : 1) + " ms" : us + " µs");
  for (const svg of document.querySelectorAll("svg.timeline")) {
    const from = Number(svg.dataset.from);
    const until = Number(svg.dataset.until);
    const left = Number(svg.dataset.left);
    const width = Number(svg.dataset.width);
    const columns = svg.dataset.columns.split(";").filter(Boolean).map((c) => c.split(",").map(Number));
    for (const title of svg.querySelectorAll("title")) {
      title.parentNode.setAttribute("data-said", title.textContent);
    }
    const hair = document.createElementNS("http://www.w3.org/2000/svg", "path");
    hair.setAttribute("class", "hair");
    svg.append(hair);
    const hide = () => {
      readout.hidden = true;
      hair.setAttribute("d", "");
    };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.viewBox.baseVal;
      const rect = svg.getBoundingClientRect();
      const x = ((event.clientX - rect.left) / rect.width) * box.width;
      const share = (x - left) / width;
      if (share !== Math.min(1, Math.max(0, share))) return hide();
      const at = from + share * (until - from);
      hair.setAttribute("d", "M" + x.toFixed(1) + ",20V" + (box.height - 18));
      const lines = [clock(at)];
      const column = columns.findLast((c) => at >= c[0]);
      if (column) {
        const seconds = column[1] / 1000;
        lines.push(Math.round(column[2] / seconds) + " done a second, " + column[3] + " refused, " + column[4] + " in doubt");
        lines.push("median " + micros(column[5]) + ", 99th percentile " + micros(column[6]));
      }
      const said = event.target.closest("[data-said]");
      if (said) lines.push("", said.dataset.said);
      readout.textContent = lines.join("\n");
      readout.hidden = false;
      const beyond = event.clientX + 18 + readout.offsetWidth > window.innerWidth;
      readout.style.left = Math.max(4, beyond ? event.clientX - 14 - readout.offsetWidth : event.clientX + 14) + "px";
      const below = event.clientY + 18 + readout.offsetHeight > window.innerHeight;
      readout.style.top = (below ? event.clientY - 12 - readout.offsetHeight : event.clientY + 16) + "px";
    });
    for (const title of svg.querySelectorAll("title")) title.remove();
  }
  // Paper cannot be unfolded, and nobody reads twenty pages of lost writes.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details:not([open])")) {
      if (fold.querySelectorAll("li, tr").length > 100) continue;
      fold.open = true;
      opened.push(fold);
    }
  });
  window.addEventListener("afterprint", () => {
    while (opened.length) opened.pop().open = false;
  });
})();
