"use strict";
// The arithmetic of a selection, on bins instead of documents. Pure: values in, values out.

// Returns floor(budget * weight / sum of weights) for every weight, exactly: tokens of a large
// corpus times its budget are beyond what a number holds.
function shareOut(budget, weights) {
  const total = weights.reduce((sum, weight) => sum + BigInt(weight), 0n);
  return weights.map((weight) => (total ? Number((BigInt(budget) * BigInt(weight)) / total) : 0));
}

// Returns the scope's name for a source, as the selection names it.
function scopeOf(source, scope) {
  return { global: "all sources", group: source.group, source: source.name }[scope];
}

// Returns what a budget keeps of every source, and where each scope is cut.
//
// sources: [{name, group, candidateTokens, tokensKept, documentsKept, bins}], bins best first as
// {scores, num_documents, tokens}. One without bins is not ranked: it keeps what it kept. Ranked
// ones share the rest of the budget among their scopes. A bin that fits is kept whole; of the first
// that does not, a share of every source's tokens: `error` is how far that can be from the truth.
// A bin of one document is kept whole or not at all, so nothing is uncertain about it.
function keptWithin(sources, { budgetTokens, scope, shares }) {
  const kept = new Map();
  let left = budgetTokens;
  const members = new Map();
  for (const source of sources) {
    if (!source.bins) {
      left -= source.tokensKept;
      kept.set(source.name, { tokens: source.tokensKept, documents: source.documentsKept, error: 0 });
      continue;
    }
    const name = scopeOf(source, scope);
    members.set(name, [...(members.get(name) ?? []), source]);
  }
  const names = [...members.keys()];
  const offered = names.map((name) =>
    members.get(name).reduce((sum, source) => sum + source.candidateTokens, 0),
  );
  const weights = shares === "equal" ? offered.map((tokens) => Number(tokens > 0)) : offered;
  const budgets = shareOut(Math.max(left, 0), weights);
  const scopes = names.map((name, index) => {
    const cut = cutScope(members.get(name), budgets[index]);
    for (const [source, found] of cut.kept) kept.set(source, found);
    return { name, budgetTokens: budgets[index], cutoff: cut.cutoff };
  });
  return { sources: sources.map((source) => ({ name: source.name, ...kept.get(source.name) })), scopes };
}

// Returns what one scope's budget keeps of its sources, and the lowest score of which it keeps some.
function cutScope(sources, budgetTokens) {
  const kept = new Map(
    sources.map((source) => [source.name, { tokens: 0, documents: 0, error: 0, cut: [] }]),
  );
  const entries = sources.flatMap(({ name, bins }) =>
    bins.scores.map((score, index) => ({
      name,
      score,
      index,
      documents: bins.num_documents[index],
      tokens: bins.tokens[index],
    })),
  );
  entries.sort((one, other) => other.score - one.score);
  let left = budgetTokens;
  let cutoff = null;
  for (let start = 0, end; start < entries.length; start = end) {
    end = start;
    while (end < entries.length && entries[end].score === entries[start].score) end += 1;
    const bin = entries.slice(start, end);
    const tokens = bin.reduce((sum, entry) => sum + entry.tokens, 0);
    const documents = bin.reduce((sum, entry) => sum + entry.documents, 0);
    const isWhole = tokens <= left;
    const part = isWhole ? 1 : documents === 1 ? 0 : left / tokens;
    for (const entry of bin) {
      const found = kept.get(entry.name);
      found.tokens += part * entry.tokens;
      found.documents += part * entry.documents;
      found.cut.push([entry.index, part]);
      const most = Math.min(entry.tokens, left);
      if (part > 0 && part < 1) found.error += Math.max(part * entry.tokens, most - part * entry.tokens);
    }
    if (part > 0) cutoff = entries[start].score;
    if (!isWhole) break;
    left -= tokens;
  }
  return { kept, cutoff };
}

const MISSING_RATING = 65535;
const NUM_SLOTS = 15;

// Returns how many of n ratings, n = 0..15, a trim cuts from each end: floor(trim * n) of the number
// as it is written, as the run counts (in binary, 0.29 * 100 is 28.999…). Null for what is no
// trim: no plain or scientific decimal in [0, 0.5).
function cutsOf(trim) {
  const written = /^\+?(\d*)(?:\.(\d*))?(?:e([+-]?\d{1,3}))?$/i.exec(String(trim).trim());
  if (!written || !(written[1] || written[2])) return null;
  const [, whole = "", part = "", exponent = "0"] = written;
  const power = Number(exponent) - part.length;
  const digits = BigInt(whole + part) * 10n ** BigInt(Math.max(power, 0));
  const scale = 10n ** BigInt(Math.max(-power, 0));
  if (2n * digits >= scale) return null;
  return Array.from({ length: NUM_SLOTS + 1 }, (_, n) => Number((digits * BigInt(n)) / scale));
}

// Returns a record's score: the mean of its usable ratings without cuts[how many there are] at each
// end, rounded to float32 as the run's are; null below `minSlots` of them.
function trimmedMean(ratings, start, isMasked, { cuts, minSlots }) {
  const usable = [];
  for (let slot = 0; slot < NUM_SLOTS; slot += 1) {
    const rating = ratings[start + slot];
    if (rating !== MISSING_RATING && !isMasked[slot]) usable.push(rating);
  }
  if (usable.length < Math.max(minSlots, 1)) return null;
  usable.sort((one, other) => one - other);
  const cut = cuts[usable.length];
  const left = usable.slice(cut, usable.length - cut);
  const sum = left.reduce((total, rating) => total + rating, 0);
  return Math.fround(sum / (left.length * 1000));
}

// Returns which slots of a source are masked: by thresholds {maxMae, minRho, combine}, or where
// those are null as the run masked them. A cell that was not measured is not masked by thresholds.
function maskedSlots(cells, thresholds, own) {
  return Array.from({ length: NUM_SLOTS }, (_, slot) => {
    if (!thresholds) return own[slot];
    if (!cells) return false;
    const isWrong = cells.mae[slot] !== null && cells.mae[slot] > thresholds.maxMae;
    const isUnranked = cells.rho[slot] !== null && cells.rho[slot] < thresholds.minRho;
    return thresholds.combine === "either" ? isWrong && isUnranked : isWrong || isUnranked;
  });
}

// Returns the bins of a source's sampled records under another trim and other masks, blown up to
// all of its candidates, and what is needed for the sampling error.
function sampledBins(source, sample, rule, thresholds) {
  const isMasked = maskedSlots(sample.cells, thresholds, rule.masked[source.name]);
  const numSampled = sample.tokens.length;
  const sampledTokens = sample.tokens.reduce((sum, tokens) => sum + tokens, 0);
  const isAll = numSampled === sample.numDocuments;
  const byScore = new Map();
  for (let record = 0; record < numSampled; record += 1) {
    const score = trimmedMean(sample.ratings, record * NUM_SLOTS, isMasked, rule);
    if (score === null) continue;
    const bin = byScore.get(score) ?? { documents: 0, tokens: 0, squares: 0 };
    bin.documents += 1;
    bin.tokens += sample.tokens[record];
    bin.squares += sample.tokens[record] ** 2;
    byScore.set(score, bin);
  }
  const scores = [...byScore.keys()].sort((one, other) => other - one);
  const bins = scores.map((score) => byScore.get(score));
  const perToken = isAll || !sampledTokens ? 1 : source.candidateTokens / sampledTokens;
  const perDocument = isAll || !numSampled ? 1 : source.candidateDocuments / numSampled;
  return {
    scores,
    num_documents: bins.map((bin) => bin.documents * perDocument),
    tokens: bins.map((bin) => bin.tokens * perToken),
    squares: bins.map((bin) => bin.squares),
    numMasked: isMasked.filter(Boolean).length,
    numSampled,
    isAll,
    allSquares: sample.tokens.reduce((sum, tokens) => sum + tokens ** 2, 0),
    sampledTokens,
  };
}

// Returns two standard errors of a source's kept tokens, as a ratio estimate from its sample.
function samplingError(source, bins, cut) {
  if (bins.isAll || bins.numSampled < 2 || !bins.sampledTokens) return 0;
  const ofTokens = cut.reduce((sum, [index, part]) => sum + part * bins.tokens[index], 0);
  const share = ofTokens / source.candidateTokens;
  const squares = cut.reduce((sum, [index, part]) => sum + part * bins.squares[index], 0);
  const deviation = (1 - share) ** 2 * squares + share ** 2 * (bins.allSquares - squares);
  const { numSampled } = bins;
  const finite = 1 - numSampled / source.candidateDocuments;
  const mean = bins.sampledTokens / numSampled;
  const variance = (Math.max(finite, 0) * deviation) / (numSampled * (numSampled - 1) * mean ** 2);
  return 2 * source.candidateTokens * Math.sqrt(variance);
}

// Returns whether a choice trims as the run did: no number of ratings tells the two apart.
function isSameTrim(arm, choice) {
  return String(cutsOf(choice.trim)) === String(cutsOf(arm.rule.trim));
}

// Returns the numbers of a changed selection: {sources, scopes, isEstimate}.
//
// choice: {budgetTokens, scope, trim, thresholds}, the trim a decimal that cutsOf takes. Budget and
// scope come from the bins of all documents; another trim or other thresholds from the samples.
function whatIf(arm, samples, choice) {
  const cuts = arm.rule && cutsOf(choice.trim);
  const isEstimate = arm.rule !== null && (choice.thresholds !== null || !isSameTrim(arm, choice));
  const rule = isEstimate ? { ...arm.rule, cuts } : null;
  const sources = arm.sources.map((source) =>
    isEstimate && source.bins
      ? { ...source, bins: sampledBins(source, samples[source.name], rule, choice.thresholds) }
      : source,
  );
  const found = keptWithin(sources, { ...choice, shares: arm.shares });
  found.sources.forEach((kept, index) => {
    if (isEstimate && sources[index].bins) {
      kept.error += samplingError(sources[index], sources[index].bins, kept.cut);
      kept.numMasked = sources[index].bins.numMasked;
    }
  });
  return { ...found, isEstimate };
}
