(p) => { // the twin of ch02.gap: same scene, computed in the browser
  const FLOOR = -9, L2PI = Math.log(2 * Math.PI), n = 1601, dz = 32 / (n - 1);
  const two = p.model === "two modes", sigma = two ? 0.6 : 0.7, xobs = two ? 2.0 : 1.4;
  const h = (z) => (two ? (z + 0.25) ** 2 : 1.2 * z + 0.3);
  const z = [], prior = [], fit = [], lq = [];
  let evidence = 0;
  for (let i = 0; i < n; i++) {
    const v = -16 + i * dz;
    z.push(v); prior.push(-0.5 * v * v - 0.5 * L2PI);
    fit.push(-0.5 * ((xobs - h(v)) / sigma) ** 2 - Math.log(sigma) - 0.5 * L2PI);
    lq.push(-0.5 * ((v - p.mean) / p.scale) ** 2 - Math.log(p.scale) - 0.5 * L2PI);
    evidence += Math.exp(prior[i] + fit[i]) * dz;
  }
  const logp = Math.log(evidence);
  let recon = 0, klPrior = 0, kl = 0, share = 0;
  for (let i = 0; i < n; i++) {
    const q = Math.exp(lq[i]) * dz;
    recon += q * fit[i]; klPrior += q * (lq[i] - prior[i]); kl += q * (lq[i] - (prior[i] + fit[i] - logp));
    const within = Math.min(1, Math.max(0, (2 * p.scale - Math.abs(z[i] - p.mean)) / dz + 0.5)); // of the cell
    share += within * Math.exp(prior[i] + fit[i] - logp) * dz;
  }
  const elbo = recon - klPrior, top = Math.max(elbo, FLOOR), zs = [], a = [], b = [], c = [];
  for (let i = 600; i < 1001; i += 2) { zs.push(z[i]); a.push(Math.exp(prior[i])); b.push(Math.exp(prior[i] + fit[i] - logp)); c.push(Math.exp(lq[i])); }
  const rect = [0.22, 0.78, 0.78, 0.22], f = (v, d) => v.toFixed(d);
  const peak = 1 / (p.scale * Math.sqrt(2 * Math.PI));
  const close = kl < 0.02 ? "q lies on the posterior." : `${f(100 * share, 0)}% of the posterior lies within two scales of q's mean.`;
  return {
    panels: [
      { xlim: [-4, 4], ylim: [0, 1.4], title: "where z may have been", xlabel: "latent z", ylabel: "density", equal: false, axes: true, aspect: 1.3, grow: 1.5, items: [
        { t: "line", s: 2, x: zs, y: a, dash: 2, w: 1.5, name: "prior p(z)" },
        { t: "line", s: 0, x: zs, y: b, dash: 0, w: 2.5, fill: 0.18, name: "posterior p(z | x)" },
        { t: "line", s: 1, x: zs, y: c, dash: 1, w: 2.5, name: "your q(z)" },
        { t: "text", s: 1, x: p.mean > 0 ? -2.2 : 2.2, y: 1.3, text: peak > 1.4 ? `q goes up to ${f(peak, 1)}` : "", align: "center", size: 1 },
      ] },
      { xlim: [-0.3, 1], ylim: [FLOOR - 0.4, 0.4], title: "one bar, two parts, in nats", xlabel: "", ylabel: "", equal: false, axes: false, aspect: 0.85, grow: 1, items: [
        { t: "line", s: -1, x: [0, 0], y: [FLOOR, 0], dash: 0, w: 1 },
        ...[-8, -6, -4, -2, 0].flatMap((v) => [
          { t: "line", s: -1, x: [-0.02, 0], y: [v, v], dash: 0, w: 1 },
          { t: "text", s: -1, x: -0.05, y: v, text: String(v).replace("-", "\u2212"), align: "right", size: 1 },
        ]),
        { t: "poly", s: 1, x: rect, y: [FLOOR, FLOOR, top, top], fill: 0.4, w: 2, name: "ELBO, above \u22129" },
        { t: "poly", s: 3, x: rect, y: [top, top, logp, logp], fill: 0.4, w: 2, name: "gap KL(q ‖ posterior)" },
        { t: "line", s: -1, x: [0, 1], y: [logp, logp], dash: 1, w: 1.5, name: "log p(x)" },
        { t: "text", s: -1, x: 0.5, y: FLOOR + 0.45, text: elbo > FLOOR + 0.9 ? "ELBO" : "", align: "center", size: 1 },
        { t: "text", s: -1, x: 0.5, y: (top + logp) / 2, text: elbo < FLOOR ? "gap, on below" : logp - top > 0.6 ? "gap" : "", align: "center", size: 1 },
      ] },
    ],
    alt: `Posterior with ${p.model}, q with mean ${f(p.mean, 2)} and scale ${f(p.scale, 2)}. The ELBO is ${f(elbo, 2)} and the gap ${f(kl, 2)}; they add up to log p(x) = ${f(logp, 2)} nats. ${close}`,
    readouts: { ELBO: f(elbo, 3), "gap KL(q ‖ posterior)": f(kl, 3), "sum, log p(x)": f(elbo + kl, 3), "E log p(x | z)": f(recon, 3), "KL(q ‖ prior)": f(klPrior, 3) },
  };
}
