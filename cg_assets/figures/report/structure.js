"use strict";
(() => {
  const data = JSON.parse(document.getElementById("structure-data").textContent);
  const canvas = document.getElementById("structure");
  const pen = canvas.getContext("2d");
  const colours = { H: "#c9ced3", C: "#7a8087", N: "#4878c8", O: "#d2503f", S: "#c9a227", P: "#d98032" };
  const sizes = { H: 0.022 };
  const reach = Math.max(0.1, ...[...data.atoms, ...data.beads].map((p) => Math.hypot(...p)));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let turn = 0.6, tilt = -0.35, held = null, frame = 0;

  // A point in front of the viewer: place on the canvas, depth, and pixels of a nanometre there.
  function seen([x, y, z]) {
    const a = x * Math.cos(turn) + z * Math.sin(turn), b = -x * Math.sin(turn) + z * Math.cos(turn);
    const c = y * Math.cos(tilt) - b * Math.sin(tilt), depth = y * Math.sin(tilt) + b * Math.cos(tilt);
    const scale = (0.42 * Math.min(canvas.width, canvas.height) / reach) * (4 * reach) / (4 * reach - depth);
    return { x: canvas.width / 2 + a * scale, y: canvas.height / 2 - c * scale, depth, scale };
  }

  function ball(at, radius, colour, alpha) {
    return { depth: at.depth, draw() {
      pen.globalAlpha = alpha;
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(at.x, at.y, radius * at.scale, 0, 2 * Math.PI);
      pen.fill();
      pen.strokeStyle = "rgba(0,0,0,.35)";
      pen.lineWidth = 1.5;
      pen.stroke();
    } };
  }

  function stick(one, other, width, colour, alpha) {
    return { depth: (one.depth + other.depth) / 2 - 1e-3, draw() {
      pen.globalAlpha = alpha;
      pen.strokeStyle = colour;
      pen.lineWidth = width * (one.scale + other.scale) / 2;
      pen.lineCap = "round";
      pen.beginPath();
      pen.moveTo(one.x, one.y);
      pen.lineTo(other.x, other.y);
      pen.stroke();
    } };
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const bead = style.getPropertyValue("--bead"), ink = style.getPropertyValue("--ink");
    const atoms = data.atoms.map(seen), beads = data.beads.map(seen);
    const parts = [
      ...data.atomBonds.map(([i, j]) => stick(atoms[i], atoms[j], 0.018, "#9aa1a8", 1)),
      ...atoms.map((at, i) => ball(at, sizes[data.elements[i]] || 0.032, colours[data.elements[i]] || "#b07fc7", 1)),
      ...data.beadBonds.map(([i, j]) => stick(beads[i], beads[j], 0.034, bead, 0.4)),
      ...beads.map((at) => ball(at, 0.062, bead, 0.45)),
    ];
    pen.clearRect(0, 0, canvas.width, canvas.height);
    parts.sort((one, other) => one.depth - other.depth).forEach((part) => part.draw());
    pen.globalAlpha = 1;
    if (data.names.length <= 30) {
      pen.fillStyle = ink;
      pen.font = "26px system-ui, sans-serif";
      beads.forEach((at, i) => pen.fillText(data.names[i], at.x + 0.07 * at.scale, at.y - 0.05 * at.scale));
    }
  }

  function tick() {
    frame = 0;
    if (held || still.matches) return;
    turn += 0.008;
    draw();
    start();
  }
  function start() { if (!frame) frame = requestAnimationFrame(tick); }
  function release() { held = null; start(); }
  canvas.addEventListener("pointerdown", (event) => { held = event; canvas.setPointerCapture(event.pointerId); });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, release));
  still.addEventListener("change", start);
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn += (event.clientX - held.clientX) * 0.01;
    tilt += (event.clientY - held.clientY) * 0.01;
    held = event;
    draw();
  });
  draw();
  start();
})();
