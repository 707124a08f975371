(() => { // the twin of ch04.bend_moons: the flow runs in the browser, on the stored float16 weights
  const BOX = 3.6, N = 64, TOP = 0.3, SHOWN = 150, REACH = 12, PER = 128;
  let layers = null, grid = null;
  const half = (h) => {
    const e = (h >> 10) & 31, f = h & 1023;
    return (h >> 15 ? -1 : 1) * (e ? (1 + f / 1024) * 2 ** (e - 15) : f * 2 ** -24);
  };
  const prepare = ({ weights, width, limit, keeps, grid: lines }) => {
    const raw = atob(weights);
    let at = 0;
    const take = (n) => Float64Array.from({ length: n }, () => half(raw.charCodeAt(at++) | (raw.charCodeAt(at++) << 8)));
    const silu = (v) => v / (1 + Math.exp(-v));
    layers = keeps.map((keep) => {
      const w1 = take(width), b1 = take(width), w2 = take(width * width), b2 = take(width), w3 = take(2 * width), b3 = take(2), h = new Float64Array(width);
      const net = (a) => { // log_scale and shift of the other coordinate
        for (let i = 0; i < width; i++) h[i] = silu(w1[i] * a + b1[i]);
        let s = b3[0], t = b3[1];
        for (let i = 0; i < width; i++) {
          let v = b2[i];
          for (let j = 0; j < width; j++) v += w2[i * width + j] * h[j];
          v = silu(v); s += w3[i] * v; t += w3[width + i] * v;
        }
        return [limit * Math.tanh(s / limit), t];
      };
      return { keep, net, table: new Float64Array(4 * REACH * PER + 2), known: new Uint8Array(2 * REACH * PER + 1) };
    });
    grid = [[], []];
    for (const [axis, value, stops] of lines) { grid[axis].push(...stops, NaN); grid[1 - axis].push(...stops.map(() => value), NaN); }
  };
  // The network is a function of one number: kept at stops 1 / PER apart, and read off by a cubic between them.
  const out = new Float64Array(2);
  const look = (layer, a) => {
    const u = (a + REACH) * PER, i = Math.floor(u), r = u - i, table = layer.table;
    if (i < 1 || i > 2 * REACH * PER - 2) { out.set(layer.net(a)); return; }
    for (let j = i - 1; j <= i + 2; j++) if (!layer.known[j]) { table.set(layer.net(j / PER - REACH), 2 * j); layer.known[j] = 1; }
    for (let q = 0, j = 2 * i; q < 2; q++, j++) {
      const c = table[j - 2], d = table[j], e = table[j + 2], f = table[j + 4];
      out[q] = d + 0.5 * r * (e - c + r * (2 * c - 5 * d + 4 * e - f + r * (3 * (d - e) + f - c)));
    }
  };
  return (p, data) => {
    if (!layers) prepare(data);
    const K = layers.length, k = Math.round(p.k * 1e6) / 1e6, whole = Math.max(Math.ceil(k) - 1, 0), share = k - whole;
    const at = layers.slice(0, whole + 1).map((layer, i) => [layer, i < whole ? 1 : share]);
    const point = [0, 0];
    const forward = (x, y) => {
      let volume = 0;
      point[0] = x; point[1] = y;
      for (const [layer, t] of at) {
        const o = 1 - layer.keep;
        look(layer, point[layer.keep]);
        point[o] = point[o] * Math.exp(t * out[0]) + t * out[1]; volume += t * out[0];
      }
      return volume;
    };
    const logProb = (x, y) => {
      let volume = 0;
      point[0] = x; point[1] = y;
      for (let i = at.length - 1; i >= 0; i--) {
        const [layer, t] = at[i], o = 1 - layer.keep;
        look(layer, point[layer.keep]);
        point[o] = (point[o] - t * out[1]) * Math.exp(-t * out[0]); volume -= t * out[0];
      }
      return volume - 0.5 * (point[0] * point[0] + point[1] * point[1]) - Math.log(2 * Math.PI);
    };
    const carry = (xs, ys) => {
      const x = [], y = [];
      let volume = 0;
      xs.forEach((v, i) => { if (v === v) volume += forward(v, ys[i]); x.push(v === v ? point[0] : NaN); y.push(v === v ? point[1] : NaN); });
      return { x, y, volume: volume / xs.length };
    };
    const lines = carry(...grid), dots = carry(...data.points), [dx, dy] = data.draws;
    let nll = 0;
    dx.forEach((v, i) => { nll -= logProb(v, dy[i]) / dx.length; });
    const v = new Array(N * N), centre = (i) => ((i + 0.5) * 2 * BOX) / N - BOX;
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) v[i * N + j] = Math.round(Math.min(1, Math.exp(logProb(centre(j), centre(i))) / TOP) ** 0.7 * 235);
    const a = `x${layers[whole].keep + 1}`, b = `x${2 - layers[whole].keep}`, done = k.toFixed(1), num = (value, d) => (Math.abs(value) < 0.5 * 10 ** -d ? 0 : value).toFixed(d);
    const title = k === 0 ? "the base, before any layer" : `layer ${whole + 1}: ${a} passes, ${b} moves`;
    const said = k === 0 ? "Nothing has moved: a standard Gaussian." : `Layer ${whole + 1} lets ${a} pass, and scales and shifts ${b} by functions of ${a}; ${(100 * share).toFixed(0)}% of it is done.`;
    const plane = { xlim: [-BOX, BOX], ylim: [-BOX, BOX], xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 1 };
    return {
      panels: [
        { ...plane, title, items: [
          { t: "line", s: -1, x: lines.x, y: lines.y, dash: 0, w: 1, a: 0.5, name: "square grid of the base, carried along" },
          { t: "points", s: 2, x: dots.x, y: dots.y, r: 2.2, m: 2, name: "points of the base" },
        ] },
        { ...plane, title: `density after ${done} of ${K} layers`, items: [
          { t: "heat", s: 0, v, shape: [N, N], extent: [-BOX, BOX, -BOX, BOX], name: "density of the flow so far" },
          { t: "points", s: 1, x: dx.slice(0, SHOWN), y: dy.slice(0, SHOWN), r: 1.6, a: 0.7, m: 1, name: "draws of the moons" },
        ] },
      ],
      alt: `After ${done} of ${K} layers. ${said} The density so far gives draws of the moons ${nll.toFixed(2)} nats on average, where the true density gives ${data.true_nll.toFixed(3)}; the mean log-determinant so far, over points of the base, is ${num(dots.volume, 2)}.`,
      readouts: { layers: `${done} of ${K}`, "NLL of 400 draws, nats": nll.toFixed(3), "NLL of the true density, nats": data.true_nll.toFixed(3), "mean logabsdet so far, nats": num(dots.volume, 3) },
    };
  };
})()
