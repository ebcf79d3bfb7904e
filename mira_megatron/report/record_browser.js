// The browser of sampled records: filters, and bodies that are made when a record is opened.

const RECORDS_AT_ONCE = 40;

// Returns whether a record passes the filters {source, status, decision, arm, low, high, words}.
function passes(record, filters) {
  const judged = record.judged[filters.arm];
  const score = judged ? judged.score : null;
  const hasRange = filters.low !== null || filters.high !== null;
  return (
    (!filters.source || record.source === filters.source) &&
    (!filters.status || record.status === filters.status) &&
    (!filters.decision || (judged && judged.decision === filters.decision)) &&
    (!hasRange || score !== null) &&
    (filters.low === null || score >= filters.low) &&
    (filters.high === null || score <= filters.high) &&
    filters.words.every((word) => record.searched.includes(word))
  );
}

function startRecordBrowser() {
  const form = document.getElementById("records-form");
  if (!form) return;
  const data = dataOf("records-data");
  const list = document.getElementById("records-list");
  const more = document.getElementById("records-more");
  const field = (name) => form.elements.namedItem(name);
  let found = [];
  for (const record of data.records) {
    const told = [record.id, record.text, record.brief ?? "", ...record.rationales.map((each) => each ?? "")];
    record.searched = told.join("\n").toLowerCase();
  }
  const options = (name, values) =>
    field(name).append(...[...new Set(values)].map((value) => element("option", { value }, value)));
  data.arms.forEach((arm, index) => field("arm").append(element("option", { value: index }, arm)));
  options("source", data.records.map((record) => record.source));
  options("status", data.records.map((record) => record.status));
  options("decision", data.records.flatMap((record) => record.judged.map((judged) => judged.decision)).sort());

  const bound = (name) => (field(name).value === "" ? null : Number(field(name).value));
  const filters = () => ({
    arm: Number(field("arm").value || 0),
    source: field("source").value,
    status: field("status").value,
    decision: field("decision").value,
    low: bound("low"),
    high: bound("high"),
    words: field("words").value.toLowerCase().split(/\s+/).filter(Boolean),
  });

  const scoreText = (score, digits) => (score === null ? "n/a" : score.toFixed(digits));

  function facts(record) {
    const pairs = [
      ["Record", element("code", {}, record.id)],
      ["From", element("bdi", {}, record.origin)],
      ["Size", `${whole(record.tokens)} tokens, ${whole(record.chars)} characters, family ${record.family}`],
      ...record.judged.map((judged, index) => [
        `Arm ${data.arms[index]}`,
        `${judged.reason}${judged.score === null ? "" : `, score ${scoreText(judged.score, 3)}`}`,
      ]),
      ["Answer", record.statusReason ? `${record.status}: ${record.statusReason}` : record.status],
    ];
    if (record.brief) pairs.push(["In brief", element("bdi", {}, record.brief)]);
    if (record.meta) pairs.push(["Passed through", element("code", {}, element("bdi", {}, record.meta))]);
    return element(
      "dl",
      { class: "facts" },
      ...pairs.flatMap(([term, what]) => [element("dt", {}, term), element("dd", {}, what)]),
    );
  }

  function ratingsTable(record) {
    const head = ["Slot", "Anchor", "Rating", "Rationale"].map((name, index) =>
      element("th", { scope: "col", ...(index === 2 ? { class: "num" } : {}) }, name),
    );
    const rows = record.scores.map((score, slot) =>
      element(
        "tr",
        {},
        element("td", { class: "slot" }, `A${slot + 1}`),
        element("th", { scope: "row" }, element("bdi", {}, data.anchors[record.source][slot])),
        element("td", { class: "num" }, scoreText(score, 1)),
        element("td", {}, element("bdi", {}, record.rationales[slot] ?? "")),
      ),
    );
    const table = element(
      "table",
      { class: "ratings" },
      element("caption", {}, "Ratings, 0 to 10. n/a is no rating; the rationale then says why."),
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows),
    );
    const label = `Ratings of record ${record.id}`;
    return element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
  }

  function body(record) {
    const text = element("div", {}, element("pre", { dir: "auto" }, element("code", {}, record.text)));
    if (record.isCut) {
      const told = `The first ${whole(data.textChars)} of ${whole(record.chars)} characters.`;
      text.append(element("p", { class: "note" }, told));
    }
    const columns = element("div", { class: "columns" }, text, ratingsTable(record));
    return element("div", { class: "body" }, facts(record), columns);
  }

  function details(record, arm) {
    const judged = record.judged[arm];
    const made = element(
      "details",
      { class: "record" },
      element(
        "summary",
        {},
        element("span", { class: "score" }, scoreText(judged ? judged.score : null, 3)),
        element("span", {}, record.source),
        element("span", { class: "reason" }, judged ? judged.reason : ""),
        element("span", { class: "why" }, record.status === "ok" ? "" : record.status),
      ),
    );
    made.addEventListener("toggle", () => {
      if (made.open && made.childElementCount === 1) made.append(body(record));
    });
    return made;
  }

  // Shows the next records of those found, below the ones that are there.
  function showMore() {
    const shown = list.childElementCount;
    const { arm } = filters();
    list.append(...found.slice(shown, shown + RECORDS_AT_ONCE).map((record) => details(record, arm)));
    const told = `${whole(found.length)} of ${whole(data.records.length)} sampled records`;
    const isAll = list.childElementCount === found.length;
    document.getElementById("records-count").textContent = isAll
      ? `${told}.`
      : `${told}, the first ${whole(list.childElementCount)} shown.`;
    more.hidden = isAll;
  }

  function show() {
    const wanted = filters();
    found = data.records.filter((record) => passes(record, wanted));
    list.replaceChildren();
    showMore();
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show)); // the fields change after the event
  more.addEventListener("click", () => {
    const next = list.childElementCount;
    showMore();
    list.children[next].querySelector("summary").focus(); // the button may be gone
  });
  document.getElementById("records-live").hidden = false;
  show();
}

startRecordBrowser();
