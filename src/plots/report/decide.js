// Decisions on the records of the browser: keep, change or drop by a key, saved as a table for the command relabel.

class EcgDecider {
  static COLUMNS = ["dataset", "record_id", "mapped_label", "decision", "given", "path"];
  static KINDS = ["keep", "change", "drop"];
  static SAYS = { keep: "kept", change: "changed", drop: "dropped" };
  // A spreadsheet would run such a part of a cell; the command takes the apostrophe away again.
  static FORMULA = /^[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20]/;

  constructor(holder, browser, records) {
    this.holder = holder;
    this.browser = browser;
    this.records = records;
    this.decided = this.load();
    this.listen();
    holder.hidden = false;
    this.show(0);
  }

  part(name) {
    return this.holder.querySelector(`[data-part="${name}"]`);
  }

  listen() {
    this.browser.holder.addEventListener("record", (event) => this.show(event.detail));
    for (const button of this.holder.querySelectorAll("[data-decide]")) {
      button.addEventListener("click", () => this.decide(button.dataset.decide));
    }
    for (const button of this.holder.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => this.step(Number(button.dataset.step)));
    }
    this.part("labels").addEventListener("keydown", (event) => event.key === "Enter" && this.decide("change"));
    this.part("save").addEventListener("click", () => this.save());
    addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const actions = {
      k: () => this.decide("keep"),
      c: () => this.decide("change"),
      d: () => this.decide("drop"),
      u: () => this.decide(""),
      n: () => this.step(1),
      p: () => this.step(-1),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  // Deciding ----------------------------------------------------------------------------------------------------------

  show(place) {
    this.place = place;
    const record = this.records[place];
    const decision = this.decided.get(place);
    this.part("question").textContent = `${place + 1} of ${this.records.length}, given ${record.given || "none"}: ${record.suggestion}?`;
    this.part("labels").value = decision && decision.kind === "change" ? decision.labels : record.suggested;
    for (const button of this.holder.querySelectorAll("[data-decide]:not([data-decide=''])")) {
      button.ariaPressed = String(Boolean(decision) && decision.kind === button.dataset.decide);
    }
    const counts = EcgDecider.KINDS.map((kind) => `${this.count(kind)} ${EcgDecider.SAYS[kind]}`);
    this.part("count").textContent = `${this.decided.size} of ${this.records.length} decided: ${counts.join(", ")}`;
    this.part("save").disabled = this.decided.size === 0;
  }

  count(kind) {
    return [...this.decided.values()].filter((decision) => decision.kind === kind).length;
  }

  decide(kind) {
    const place = this.place;
    if (kind) this.decided.set(place, { kind, labels: kind === "change" ? this.part("labels").value : this.records[place].given });
    else this.decided.delete(place);
    this.store();
    const next = this.records.findIndex((_, other) => other > place && !this.decided.has(other));
    if (kind && next >= 0) this.browser.show(next);
    else this.show(place);
  }

  step(by) {
    this.browser.show(Math.min(Math.max(this.place + by, 0), this.records.length - 1));
  }

  // Keeping -----------------------------------------------------------------------------------------------------------

  // A page that is opened again goes on where it was left; some browsers keep nothing for files.
  get name() {
    return `decisions ${this.records.map((record) => `${record.dataset} ${record.record_id} ${record.given}`).join("\n")}`;
  }

  load() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.name)) || [];
      return new Map(kept.filter(([place, { kind, labels }]) => this.records[place] && EcgDecider.KINDS.includes(kind) && typeof labels === "string"));
    } catch {
      return new Map();
    }
  }

  store() {
    try {
      localStorage.setItem(this.name, JSON.stringify([...this.decided]));
    } catch {
      // The decisions stay on the page until it is closed
    }
  }

  table() {
    const rows = [...this.decided].sort((a, b) => a[0] - b[0]).map(([place, { kind, labels }]) => {
      const { dataset, record_id, given, path } = this.records[place];
      return [dataset, record_id, labels, kind, given, path];
    });
    const cell = (text) => {
      const parts = text.split(";").map((part) => part.trim()).filter(Boolean);
      const safe = parts.map((part) => (EcgDecider.FORMULA.test(part) ? `'${part}` : part)).join(";");
      return `"${safe.replaceAll('"', '""')}"`;
    };
    return [EcgDecider.COLUMNS.join(","), ...rows.map((row) => row.map(cell).join(","))].join("\n") + "\n";
  }

  save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.table()], { type: "text/csv" }));
    link.download = "decisions.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}

const decider = document.getElementById("ecg-decider");
if (decider && browser) new EcgDecider(decider, browser, JSON.parse(document.getElementById("ecg-choices").textContent));
