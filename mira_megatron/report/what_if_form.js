// The control: reads the form, fills the table. Text enters the page by textContent only.

const dataOf = (id) => JSON.parse(document.getElementById(id).textContent);

// Returns an element with attributes and children; strings become text, never markup.
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const whole = (number) => Math.round(number).toLocaleString("en-GB");
const signed = (number) => `${Math.round(number) > 0 ? "+" : ""}${whole(number)}`.replace("-", "−");
const percentOf = (part, all) => (all ? `${((100 * part) / all).toFixed(1)}%` : "n/a");

// Returns a sample with its numbers as typed arrays instead of base64.
function decoded(sample) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  // Little-endian, as every machine with a browser is.
  const tokens = Array.from(new Uint32Array(bytes(sample.tokens)));
  return { ...sample, tokens, ratings: new Uint16Array(bytes(sample.ratings)) };
}

function startWhatIf() {
  const form = document.getElementById("what-if-form");
  if (!form) return;
  const data = dataOf("what-if-data");
  const samples = Object.fromEntries(
    Object.entries(data.samples).map(([source, sample]) => [source, decoded(sample)]),
  );
  const field = (name) => form.elements.namedItem(name);
  const hasCells = Object.values(samples).some((sample) => sample.cells);
  data.arms.forEach(({ arm }, index) => field("arm").append(element("option", { value: index }, arm)));
  const currentArm = () => data.arms[Number(field("arm").value)];
  const offered = (arm) => arm.sources.reduce((sum, source) => sum + source.candidateTokens, 0);

  function reset() {
    const arm = currentArm();
    field("budget").max = offered(arm);
    field("budget").value = arm.budgetTokens;
    field("share").value = (100 * arm.budgetTokens) / Math.max(offered(arm), 1);
    field("scope").value = arm.scope;
    field("trim").disabled = field("thresholds").disabled = arm.rule === null;
    field("trim").value = arm.rule ? arm.rule.trim : "";
    field("thresholds").disabled ||= !hasCells;
    field("thresholds").checked = false;
    field("min_rho").value = data.minRho;
    field("max_mae").value = 1;
    field("combine").value = "both";
    show();
  }

  // What is no trim is not tried: the numbers stay those of the run's own, and the page says so.
  const isTrim = (arm) => arm.rule === null || cutsOf(field("trim").value) !== null;

  function chosen() {
    const arm = currentArm();
    const thresholds = {
      maxMae: Number(field("max_mae").value),
      minRho: Number(field("min_rho").value),
      combine: field("combine").value,
    };
    return {
      budgetTokens: Math.max(0, Math.floor(Number(field("budget").value)) || 0),
      scope: field("scope").value,
      trim: arm.rule && !isTrim(arm) ? arm.rule.trim : field("trim").value,
      thresholds: field("thresholds").checked ? thresholds : null,
    };
  }

  const isRun = (arm, choice) =>
    choice.budgetTokens === arm.budgetTokens &&
    choice.scope === arm.scope &&
    !choice.thresholds &&
    (!arm.rule || isSameTrim(arm, choice));

  const ownNumbers = (arm) => ({
    isEstimate: false,
    scopes: [],
    sources: arm.sources.map((source) => ({
      name: source.name,
      tokens: source.tokensKept,
      documents: source.documentsKept,
      error: 0,
    })),
  });

  function sentence(arm, choice, found) {
    const told = [];
    if (!isTrim(arm)) {
      told.push(`A trim must be a number of at least 0 and below 0.5; the run’s ${arm.rule.trim} is used.`);
    }
    if (arm.rule === null) {
      told.push(
        "Trim and thresholds cannot be tried here: the arm’s scores are no trimmed means of this run’s ratings, or it chose among fewer documents.",
      );
    }
    if (isRun(arm, choice)) {
      return ["These are the run’s own numbers, as its certificate has them.", ...told].join(" ");
    }
    if (found.isEstimate) {
      const used = arm.sources.filter((source) => source.bins).map(({ name }) => samples[name]);
      const numSampled = used.reduce((sum, sample) => sum + sample.tokens.length, 0);
      const numAll = used.reduce((sum, sample) => sum + sample.numDocuments, 0);
      told.push(
        numSampled === numAll
          ? `Computed from the ratings of all ${whole(numAll)} records; uncertain is only who of equals at a cutoff is kept.`
          : `An estimate from the ratings of ${whole(numSampled)} of ${whole(numAll)} records; ± adds two standard errors of sampling to what is uncertain at the cutoffs.`,
      );
      if (choice.thresholds) {
        const masked = found.sources.filter((kept) => kept.numMasked);
        told.push(
          masked.length
            ? `Masked slots: ${masked.map((kept) => `${kept.name} ${kept.numMasked}`).join(", ")}.`
            : "No slot is masked by these thresholds.",
        );
      }
    } else {
      told.push(
        arm.binWidth
          ? `Computed from bins of ${arm.binWidth} points of all documents; ± is what a cutoff inside a bin leaves open.`
          : "Computed from all documents by their distinct scores; ± is what equals at a cutoff leave open.",
      );
    }
    if (arm.besideRanking.length) told.push(`Left out: the arm’s ${arm.besideRanking.join(", ")}.`);
    return told.join(" ");
  }

  function row(source, kept) {
    const change = kept.tokens - source.tokensKept;
    const meter = element("span", { class: "meter", "aria-hidden": "true" });
    meter.style.setProperty("--part", percentOf(Math.min(kept.tokens, source.candidateTokens), source.candidateTokens || 1));
    const share = element("span", { class: "share" }, meter, percentOf(kept.tokens, source.candidateTokens));
    const numeric = (...content) => element("td", { class: "num" }, ...content);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, source.name),
      numeric(whole(source.candidateTokens)),
      numeric(whole(source.tokensKept)),
      numeric(whole(kept.tokens)),
      numeric(kept.error >= 0.5 ? `± ${whole(kept.error)}` : "exact"),
      numeric(signed(change)),
      numeric(share),
      numeric(whole(kept.documents)),
    );
  }

  function show() {
    const arm = currentArm();
    const choice = chosen();
    field("trim").setAttribute("aria-invalid", String(!isTrim(arm)));
    const isOwn = isRun(arm, choice);
    const found = isOwn ? ownNumbers(arm) : whatIf(arm, samples, choice);
    const body = document.querySelector("#what-if-table tbody");
    const rows = arm.sources.map((source, index) => row(source, found.sources[index]));
    body.replaceChildren(...rows);
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    const all = {
      name: "All sources",
      candidateTokens: offered(arm),
      tokensKept: sum(arm.sources.map((source) => source.tokensKept)),
    };
    const total = row(all, {
      tokens: sum(found.sources.map((kept) => kept.tokens)),
      documents: sum(found.sources.map((kept) => kept.documents)),
      error: sum(found.sources.map((kept) => kept.error)),
    });
    document.querySelector("#what-if-table tfoot").replaceChildren(total);
    document.getElementById("what-if-said").textContent = sentence(arm, choice, found);
    const cuts = found.scopes.map(
      ({ name, budgetTokens, cutoff }) =>
        `${name}: ${cutoff === null ? "keeps nothing" : `cut at ${cutoff.toFixed(3)}`} of ${whole(budgetTokens)} tokens`,
    );
    document.getElementById("what-if-cuts").replaceChildren(...cuts.map((text) => element("li", {}, text)));
    document.getElementById("what-if-cut-list").hidden = cuts.length === 0;
    document.getElementById("what-if-thresholds").hidden = !field("thresholds").checked;
  }

  form.addEventListener("input", (event) => {
    const arm = currentArm();
    if (event.target.name === "arm") return reset();
    if (event.target.name === "share") {
      field("budget").value = Math.floor((Number(field("share").value) / 100) * offered(arm));
    } else if (event.target.name === "budget") {
      field("share").value = (100 * Number(field("budget").value)) / Math.max(offered(arm), 1);
    }
    return show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  field("reset").addEventListener("click", reset);
  document.getElementById("what-if-live").hidden = false;
  reset();
}

startWhatIf();
