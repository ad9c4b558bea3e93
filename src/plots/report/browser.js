// The record browser: zooms into a recording, lead below lead, on paper whose large boxes are 0.2 s and 0.5 mV.

class EcgBrowser {
  static GROUPS = { "all twelve": [0, 12], "limb leads": [0, 6], "chest leads": [6, 12] };
  static MISSING = -32768;
  static LEVELS = [0.15, 0.3, 0.5, 0.75];
  static NARROWEST = 0.5; // seconds
  static TOP = 8; // pixels above the first row

  constructor(holder, records) {
    this.holder = holder;
    this.records = records;
    this.paper = this.part("paper");
    this.pointers = new Map();
    this.fillTools();
    this.listen();
    holder.hidden = false;
    this.show(0);
    new ResizeObserver(() => this.draw()).observe(holder);
  }

  part(name) {
    return this.holder.querySelector(`[data-part="${name}"]`);
  }

  tool(name) {
    return this.holder.querySelector(`[data-tool="${name}"]`);
  }

  // Records ---------------------------------------------------------------------------------------------------------

  static decode(record) {
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
    const codes = new Int16Array(bytes(record.data));
    const n = codes.length / record.leads.length;
    const leads = record.leads.map((name, i) => EcgBrowser.centre(name, codes.subarray(i * n, (i + 1) * n), record.step_mv));
    const shade = record.shade && { ...record.shade, values: new Int8Array(bytes(record.shade.data)) };
    return { ...record, n, leads, shade, seconds: n / record.fs };
  }

  static centre(name, codes, step) {
    const known = Array.from(codes.filter((code) => code !== EcgBrowser.MISSING)).sort((a, b) => a - b);
    const at = (share) => (known.length ? known[Math.min(known.length - 1, Math.floor(share * known.length))] : 0);
    const middle = at(0.5);
    return { name, codes, step, middle, reach: Math.max(at(0.998) - middle, middle - at(0.002)) * step };
  }

  show(place) {
    this.record = EcgBrowser.decode(this.records[place]);
    this.tool("record").value = String(place);
    this.part("note").textContent = this.record.note;
    this.part("key").hidden = !this.record.shade;
    this.part("class").textContent = this.record.shade ? this.record.shade.class : "";
    this.gain = 1;
    this.start = 0;
    this.span = this.record.seconds;
    this.measured = null;
    this.draw();
    this.holder.dispatchEvent(new CustomEvent("record", { detail: place }));
  }

  // Tools -----------------------------------------------------------------------------------------------------------

  fillTools() {
    this.records.forEach((record, place) => this.tool("record").add(new Option(`${record.title} (${record.key})`, place)));
    const names = [...Object.keys(EcgBrowser.GROUPS), ...this.records[0].leads];
    names.forEach((name) => this.tool("leads").add(new Option(name)));
  }

  listen() {
    const onClick = (name, action) => this.tool(name).addEventListener("click", action);
    this.tool("record").addEventListener("change", (event) => this.show(Number(event.target.value)));
    this.tool("leads").addEventListener("change", () => this.draw());
    this.tool("start").addEventListener("input", (event) => this.move(Number(event.target.value), this.span));
    onClick("closer", () => this.zoom(1 / 1.5));
    onClick("wider", () => this.zoom(1.5));
    onClick("higher", () => this.scale(1.25));
    onClick("lower", () => this.scale(1 / 1.25));
    onClick("whole", () => this.move(0, this.record.seconds));
    this.paper.addEventListener("keydown", (event) => this.onKey(event));
    this.paper.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.paper.addEventListener("dblclick", (event) => this.zoom(1 / 2, this.timeAt(event)));
    this.paper.addEventListener("pointerdown", (event) => this.onDown(event));
    this.paper.addEventListener("pointermove", (event) => this.onMove(event));
    for (const name of ["pointerup", "pointercancel"]) this.paper.addEventListener(name, (event) => this.onUp(event));
    this.paper.addEventListener("pointerleave", () => this.say(""));
    for (const button of document.querySelectorAll("[data-open]")) {
      button.addEventListener("click", () => {
        this.show(Number(button.dataset.open));
        this.holder.closest("section").scrollIntoView();
        this.paper.focus({ preventScroll: true });
      });
    }
  }

  move(start, span) {
    this.span = Math.min(Math.max(span, Math.min(EcgBrowser.NARROWEST, this.record.seconds)), this.record.seconds);
    this.start = Math.min(Math.max(start, 0), this.record.seconds - this.span);
    this.draw();
  }

  zoom(factor, around = this.start + this.span / 2) {
    const share = (around - this.start) / this.span;
    const least = Math.min(EcgBrowser.NARROWEST, this.record.seconds);
    const span = Math.min(Math.max(this.span * factor, least), this.record.seconds);
    this.move(around - share * span, span);
  }

  scale(factor) {
    this.gain = Math.min(Math.max(this.gain * factor, 0.1), 20);
    this.draw();
  }

  // Keys, wheel and pointers ----------------------------------------------------------------------------------------

  onKey(event) {
    const actions = {
      ArrowLeft: () => this.move(this.start - this.span / 5, this.span),
      ArrowRight: () => this.move(this.start + this.span / 5, this.span),
      ArrowUp: () => this.scale(1.25),
      ArrowDown: () => this.scale(1 / 1.25),
      Home: () => this.move(0, this.span),
      End: () => this.move(this.record.seconds, this.span),
      "+": () => this.zoom(1 / 1.5),
      "=": () => this.zoom(1 / 1.5),
      "-": () => this.zoom(1.5),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  onWheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) / 200), this.timeAt(event));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.move(this.start + (event.deltaX / this.width) * this.span, this.span);
    } // without Ctrl, the wheel scrolls the page
  }

  onDown(event) {
    this.paper.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.paper.classList.add("busy");
    this.measured = event.shiftKey ? { from: this.place(event), to: this.place(event) } : null;
    this.draw();
  }

  onMove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.say(this.describe(event));
    const others = [...this.pointers.values()].filter((other) => other.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (others.length) {
      const apart = (one) => Math.max(20, Math.abs(one.clientX - others[0].clientX));
      this.zoom(apart(before) / apart(event), this.timeAt({ clientX: (event.clientX + others[0].clientX) / 2 }));
    } else if (this.measured) {
      this.measured.to = this.place(event);
      this.draw();
      this.say(this.describeMeasured());
    } else {
      this.move(this.start - ((event.clientX - before.clientX) / this.width) * this.span, this.span);
    }
    return undefined;
  }

  onUp(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.paper.classList.remove("busy");
  }

  timeAt(event) {
    return this.start + ((event.clientX - this.paper.getBoundingClientRect().left) / this.width) * this.span;
  }

  place(event) {
    return { time: this.timeAt(event), y: event.clientY - this.paper.getBoundingClientRect().top };
  }

  // The value under the pointer ---------------------------------------------------------------------------------------

  describe(event) {
    const { time, y } = this.place(event);
    const lead = this.shown[Math.min(this.shown.length - 1, Math.max(0, Math.floor((y - EcgBrowser.TOP) / this.rowHeight)))];
    const sample = Math.min(this.record.n - 1, Math.max(0, Math.round(time * this.record.fs)));
    const code = lead.codes[sample];
    const value = code === EcgBrowser.MISSING ? "missing" : `${(code * lead.step).toFixed(3)} mV`;
    return `${lead.name} at ${(sample / this.record.fs).toFixed(3)} s: ${value}`;
  }

  describeMeasured() {
    const seconds = Math.abs(this.measured.to.time - this.measured.from.time);
    const millivolts = Math.abs(this.measured.to.y - this.measured.from.y) / this.pixelsPerMv;
    const rate = seconds > 0.2 ? ` (${Math.round(60 / seconds)} per minute)` : "";
    return `${(seconds * 1000).toFixed(0)} ms${rate}, ${millivolts.toFixed(2)} mV`;
  }

  say(text) {
    this.part("readout").textContent = text;
  }

  // Drawing ---------------------------------------------------------------------------------------------------------

  draw() {
    if (!this.record) return;
    const choice = this.tool("leads").value;
    const group = EcgBrowser.GROUPS[choice];
    this.shown = group ? this.record.leads.slice(...group) : this.record.leads.filter((lead) => lead.name === choice);
    this.width = this.paper.clientWidth || this.holder.clientWidth;
    this.height = 600;
    this.rowHeight = (this.height - EcgBrowser.TOP - 16) / this.shown.length;
    const reach = Math.max(0.5, ...this.shown.map((lead) => Math.min(lead.reach, 4)));
    this.pixelsPerMv = ((0.6 * this.rowHeight) / reach) * this.gain;
    this.paper.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.paper.style.height = `${this.height}px`;
    this.paper.replaceChildren(...this.drawGrid(), ...this.drawShade(), ...this.drawTraces(), ...this.drawMeasure());
    this.tool("start").max = this.record.seconds - this.span;
    this.tool("start").value = this.start;
    Object.assign(this.holder.dataset, { start: this.start.toFixed(3), span: this.span.toFixed(3), key: this.record.key });
  }

  element(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  x(time) {
    return ((time - this.start) / this.span) * this.width;
  }

  drawGrid() {
    const perSecond = this.width / this.span;
    const across = (step, gap) => (step * perSecond < gap ? "" : this.lines(step));
    const up = (step, gap) => (step * this.pixelsPerMv < gap ? "" : this.levels(step * this.pixelsPerMv));
    const labels = [];
    const apart = [0.2, 1, 2, 5, 10, 30, 60].find((step) => step * perSecond >= 45) || 60;
    for (let time = Math.ceil(this.start / apart) * apart; time <= this.start + this.span; time += apart) {
      const x = Math.min(Math.max(this.x(time), 14), this.width - 14);
      labels.push(this.element("text", { class: "time", x, y: this.height - 4 }, `${Number(time.toFixed(1))} s`));
    }
    return [
      this.element("path", { class: "minor", d: across(0.04, 4) + up(0.1, 4) }),
      this.element("path", { class: "major", d: (across(0.2, 4) || this.lines(1)) + up(0.5, 4) }),
      ...labels,
    ];
  }

  lines(step) {
    let path = "";
    for (let i = Math.ceil(this.start / step); i * step <= this.start + this.span; i += 1) path += `M${this.x(i * step).toFixed(1)} 0V${this.height}`;
    return path;
  }

  levels(pixels) {
    let path = "";
    for (let y = (EcgBrowser.TOP + this.rowHeight / 2) % pixels; y < this.height; y += pixels) path += `M0 ${y.toFixed(1)}H${this.width}`;
    return path;
  }

  drawTraces() {
    return this.shown.flatMap((lead, row) => {
      const baseline = EcgBrowser.TOP + (row + 0.5) * this.rowHeight;
      const name = this.element("text", { x: 4, y: baseline - this.rowHeight / 2 + 13 }, lead.name);
      return [this.element("path", { class: "trace", d: this.trace(lead, baseline) }), name];
    });
  }

  // Returns the path of a lead. Samples that share a pixel are drawn as a line from the lowest to the highest.
  trace(lead, baseline) {
    const { fs, n } = this.record;
    const first = Math.max(0, Math.floor(this.start * fs) - 1);
    const last = Math.min(n, Math.ceil((this.start + this.span) * fs) + 2);
    const step = Math.max(1, Math.floor((this.span * fs) / this.width / 2));
    const y = (code) => (baseline - (code - lead.middle) * lead.step * this.pixelsPerMv).toFixed(1);
    const parts = [];
    let pen = "M";
    for (let i = first; i < last; i += step) {
      let low = i;
      let high = i;
      for (let j = i; j < Math.min(i + step, last); j += 1) {
        if (lead.codes[j] < lead.codes[low]) low = j;
        if (lead.codes[j] > lead.codes[high]) high = j;
      }
      if (lead.codes[low] === EcgBrowser.MISSING) {
        pen = "M";
        continue;
      }
      for (const j of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        parts.push(`${pen}${this.x(j / fs).toFixed(1)} ${y(lead.codes[j])}`);
        pen = "L";
      }
    }
    return parts.join("");
  }

  drawShade() {
    const shade = this.record.shade;
    if (!shade) return [];
    const perLead = shade.values.length / this.record.leads.length;
    const paths = new Map();
    this.shown.forEach((lead, row) => {
      const offset = this.record.leads.indexOf(lead) * perLead;
      const last = Math.min(perLead, Math.ceil((this.start + this.span) / shade.seconds));
      for (let i = Math.max(0, Math.floor(this.start / shade.seconds)); i < last; i += 1) {
        const value = shade.values[offset + i] / 127;
        const level = EcgBrowser.LEVELS.filter((least) => least <= Math.abs(value)).pop();
        if (level === undefined) continue;
        const key = `${value > 0 ? "for" : "against"} ${level}`;
        const [left, right] = [this.x(i * shade.seconds), this.x((i + 1) * shade.seconds)].map((x) => x.toFixed(1));
        const [top, bottom] = [row + 0.04, row + 0.96].map((place) => (EcgBrowser.TOP + place * this.rowHeight).toFixed(1));
        paths.set(key, `${paths.get(key) || ""}M${left} ${top}H${right}V${bottom}H${left}z`);
      }
    });
    return Array.from(paths, ([key, d]) => {
      const [side, level] = key.split(" ");
      return this.element("path", { class: side, "fill-opacity": level, d });
    });
  }

  drawMeasure() {
    if (!this.measured) return [];
    const { from, to } = this.measured;
    const path = `M${this.x(from.time)} ${from.y}H${this.x(to.time)}V${to.y}H${this.x(from.time)}z`;
    return [this.element("path", { class: "measure", d: path })];
  }
}

const holder = document.getElementById("ecg-browser");
const browser = holder && new EcgBrowser(holder, JSON.parse(document.getElementById("ecg-records").textContent));
