(() => { // the twin of ch10.langevin_step: same random numbers, same scene, computed in the browser
  const CHAINS = 400, MOST = 400, FAR = 8, BINS = 64, GRID = 2 ** 16, W = [0.2, 0.8], STD = 0.5;
  const uniform = (i) => { // a hash of a counter, 32 bits
    let h = (i + 0x9e3779b9) >>> 0;
    h = Math.imul(h ^ (h >>> 16), 0x21f0aaad) >>> 0;
    h = Math.imul(h ^ (h >>> 15), 0x735a2d97) >>> 0;
    return (((h ^ (h >>> 15)) >>> 0) + 0.5) / 4294967296;
  };
  let kicks = null;
  const prepare = () => {
    kicks = new Float64Array(MOST * CHAINS);
    for (let i = 0; i < kicks.length; i++) kicks[i] = Math.sqrt(-2 * Math.log(uniform(2 * i))) * Math.cos(2 * Math.PI * uniform(2 * i + 1));
  };
  const score = (x, half) => {
    const right = 1 / (1 + Math.exp(-(Math.log(W[1] / W[0]) + (2 * half * x) / STD ** 2)));
    return (half * (2 * right - 1) - x) / STD ** 2;
  };
  return (p) => {
    if (!kicks) prepare();
    const h = 10 ** p.log_step, n = Math.round(p.steps), half = p.gap / 2, root = Math.sqrt(2 * h);
    const x = new Float64Array(CHAINS).map((_, i) => ((i + 0.5) * 8) / CHAINS - 4), trace = [x[100]];
    for (let k = 0; k < n; k++) {
      for (let i = 0; i < CHAINS; i++) { // rounded, so that chaos has no last digit to work on
        if (Math.abs(x[i]) <= FAR) x[i] = Math.floor((x[i] + h * score(x[i], half) + root * kicks[k * CHAINS + i]) * GRID + 0.5) / GRID;
      }
      trace.push(x[100]);
    }
    const width = 16 / BINS, height = new Array(BINS).fill(0), centre = height.map((_, b) => (b + 0.5) * width - 8);
    let lost = 0, share = 0;
    for (const v of x) {
      lost += Math.abs(v) > FAR ? 1 / CHAINS : 0; share += v < 0 ? 1 / CHAINS : 0;
      const b = Math.floor((v + 8) / width);
      if (b >= 0 && b < BINS) height[b] += 1;
    }
    const grid = Array.from({ length: 241 }, (_, i) => -6 + i / 20), bell = (z) => Math.exp(-0.5 * z * z) / (STD * Math.sqrt(2 * Math.PI));
    const density = grid.map((g) => W[0] * bell((g + half) / STD) + W[1] * bell((g - half) / STD));
    const truth = (density.slice(0, 120).reduce((a, b) => a + b, 0) + density[120] / 2) / 20;
    const limit = 2 * STD ** 2, wide = h < limit ? (1 / Math.sqrt(1 - h / limit)).toFixed(2) : "no law";
    const said = lost > 0.02 ? `${(100 * lost).toFixed(0)}% of the chains have flown off: the step is too long.` : `The share on the left is ${share.toFixed(3)}, the truth ${truth.toFixed(3)}.`;
    const level = (m, name) => ({ t: "line", s: -1, x: [0, MOST], y: [m, m], dash: 2, w: 1, ...name });
    return {
      panels: [
        { xlim: [-6, 6], ylim: [0, 1], title: "400 chains after these steps", xlabel: "x", ylabel: "density", equal: false, axes: true, aspect: 1.2, grow: 1, items: [
          { t: "bars", s: 0, x: centre, y: height.map((c) => Math.min(1, c / CHAINS / width)), width, fill: 0.35, name: "chains" },
          { t: "line", s: 1, x: grid, y: density, dash: 1, w: 2.2, name: "truth" },
        ] },
        { xlim: [0, MOST], ylim: [-6, 6], title: "one of them", xlabel: "steps", ylabel: "x", equal: false, axes: true, aspect: 1.2, grow: 1, items: [
          level(-half, { name: "tops of the bumps" }), level(half),
          { t: "line", s: 0, x: trace.map((_, i) => i), y: trace, dash: 0, w: 1.3, name: "a chain" },
        ] },
      ],
      alt: `Step ${h.toFixed(4)}, ${n} steps, bumps ${p.gap.toFixed(1)} apart. ${said}`,
      readouts: { "step h": h.toFixed(4), "time, h × n": (h * n).toFixed(2), "share on the left": lost > 0.02 ? "–" : share.toFixed(3), truth: truth.toFixed(3), "bump width / true width, in the limit": wide },
    };
  };
})()
