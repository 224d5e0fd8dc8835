export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect y="5" width="9" height="6" fill="#1f7a4d"/><rect x="9" y="3" width="2" height="10" fill="#c62f2f"/><rect x="11" y="5" width="5" height="6" fill="#1f7a4d"/></svg>`;

/** The one style sheet. */
export const STYLE = `:root{
--ground:#f6f7f8;--panel:#fff;--line:#dde1e5;--ink:#1b2127;--soft:#59636d;--link:#0b5a9c;
--good:#1a6e45;--warn:#855400;--bad:#b42323;--good-soft:#e3f2ea;--warn-soft:#fbefd9;--bad-soft:#fbe6e4;
--window:#2f8f61;--live:#2f8f61;--beside:#bfe0cf;--wal:#7f8b97;--gap:#cf2e2e;--cross:#fff;--behind:#6b7680;--bar:#eceff2;--fork:#6a3fb5;--backup:#1b2127}
@media (prefers-color-scheme:dark){:root{
--ground:#101418;--panel:#181d23;--line:#2c343c;--ink:#e4e8ec;--soft:#9aa5b0;--link:#7ab8f0;
--good:#6ccf9c;--warn:#e8b25a;--bad:#ff8f87;--good-soft:#14301f;--warn-soft:#36280d;--bad-soft:#3d1917;
--window:#3a9a6b;--live:#3a9a6b;--beside:#1f4a36;--wal:#7d8994;--gap:#e5484d;--cross:#181d23;--behind:#8b96a1;--bar:#242b32;--fork:#b79cf2;--backup:#e4e8ec}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light dark;scroll-padding-top:1rem}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
a{color:var(--link);text-underline-offset:2px}
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible,.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
small{font-size:12.5px;color:var(--soft)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace;font-size:12.5px}
h1{font-size:20px;line-height:1.3;margin:0;overflow-wrap:anywhere}
h2{font-size:15px;line-height:1.3;margin:0;overflow-wrap:anywhere}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--panel);padding:6px 10px;z-index:1}
.top{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline;padding:10px 20px;border-bottom:1px solid var(--line);background:var(--panel)}
.brand{font-weight:650;letter-spacing:-.01em}
.top ol{display:flex;flex-wrap:wrap;margin:0;padding:0;list-style:none}
.top li+li::before{content:"/";color:var(--soft);margin:0 7px}
.top [aria-current]{color:inherit;text-decoration:none}
.top li{overflow-wrap:anywhere}
.stamp{margin:0 0 0 auto;color:var(--soft);font-size:12.5px}
#stale:not(:empty){margin-left:8px;color:var(--bad);font-weight:600}
.stale main{opacity:.6}
.patterns{position:absolute}
main{max-width:1240px;margin:0 auto;padding:16px 20px 28px}
footer{max-width:1240px;margin:0 auto;padding:0 20px 24px;color:var(--soft);font-size:12.5px}
main{display:grid;grid-template-columns:minmax(0,1fr);gap:12px}.live:empty{display:none}
.summary{display:flex;flex-wrap:wrap;gap:2px 20px}.summary p{margin:0}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:12px 14px 12px}
.panel.bad{border-left:3px solid var(--bad);padding-left:12px}.panel.warn{border-left:3px solid var(--warn);padding-left:12px}
.panel>header{display:flex;flex-wrap:wrap;gap:2px 10px;align-items:baseline}
.panel>header h2 a{color:inherit;text-decoration-color:var(--line)}.panel>header h2 a:hover{text-decoration-color:inherit}
.reach{margin-left:auto}
.under{margin:2px 0 0;color:var(--soft);font-size:12.5px}.under .source{margin-left:10px}
.state{font-weight:600}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.panel.good,.panel.warn,.panel.bad{color:inherit}
.sign{font-weight:700;display:inline-block;min-width:1em;text-align:center}
.empty{margin:10px 0 4px;color:var(--soft)}
.bar{display:block;margin:6px 0 2px;overflow:visible}
.bar text{font-size:11px;fill:var(--soft)}
.ground{fill:var(--bar)}
.seg{shape-rendering:crispEdges}.seg.window{fill:var(--window)}.seg.live{fill:var(--live)}
.seg.beside{fill:var(--beside);stroke:var(--window)}.seg.wal,.seg.behind{stroke:var(--wal);stroke-width:1}.seg.behind{stroke:var(--behind);stroke-dasharray:2 2}
.seg.gap{stroke:var(--gap);stroke-width:1}
.p-wal{stroke:var(--wal);stroke-width:1.6;fill:none}.p-gap{fill:var(--gap)}.p-cross{stroke:var(--cross);stroke-width:1;opacity:.65;fill:none}
.p-accepted{stroke:var(--gap);stroke-width:1.4;fill:none}.p-behind{fill:var(--behind)}
.tick line{stroke:var(--line)}.now{stroke:var(--ink);stroke-width:2}.bar text.end{fill:var(--ink);font-weight:600}
.mark.backup{fill:var(--backup)}.mark.backup.part{fill:var(--soft)}.mark.fork{fill:var(--fork);stroke:var(--panel);stroke-width:1.5}
.mark.useless{fill:none;stroke:var(--bad);stroke-width:1.2}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:4px 0 0;padding:0;list-style:none;color:var(--soft);font-size:12.5px}
.legend li{display:flex;align-items:center;gap:5px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:8px 16px;margin:8px 0 0}
.facts.wide{grid-template-columns:repeat(auto-fill,minmax(min(260px,100%),1fr))}
.fact{min-width:0;color:inherit}.fact dt{font-size:11.5px;color:var(--soft)}.fact dd{margin:0;overflow-wrap:anywhere}
.fact b{font-weight:600}.fact small{display:block;line-height:1.3}
.fact.warn b{color:var(--warn)}.fact.bad b{color:var(--bad)}
.troubles{list-style:none;margin:10px 0 0;padding:0;display:grid;gap:4px}
.troubles li{padding:4px 8px;border-radius:4px;color:var(--ink);overflow-wrap:anywhere}
.troubles .bad,.notice.bad{background:var(--bad-soft);color:var(--ink)}.troubles .warn,.notice.warn{background:var(--warn-soft);color:var(--ink)}
.troubles .sign.bad,.troubles .sign.warn{background:none}.troubles .sign.bad{color:var(--bad)}.troubles .sign.warn{color:var(--warn)}
.troubles small{color:var(--ink);opacity:.85}
.notice{padding:6px 10px;border-radius:4px;margin:8px 0}
.notice.good{background:var(--good-soft);color:var(--ink)}
.scroll{overflow-x:auto;margin-top:6px}
table{border-collapse:collapse;width:100%;font-size:13px}
th{text-align:left;font-weight:500;color:var(--soft);font-size:12px;white-space:nowrap}
th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
td{white-space:nowrap}td.text{white-space:normal;min-width:220px;overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}.number{text-align:right}
.events{list-style:none;margin:6px 0 0;padding:0;font-size:13px;display:grid;grid-template-columns:auto auto minmax(0,1fr);gap:0 14px}
.events li{display:grid;grid-template-columns:subgrid;grid-column:1/-1;padding:4px 0;border-bottom:1px solid var(--line)}.events li:last-child{border-bottom:0}
.events time{color:var(--soft);white-space:nowrap}.events span{overflow-wrap:anywhere}
.lag{margin:8px 0 0}.lag svg{display:block}.lag figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 12px;color:var(--soft);font-size:12px}
.area{fill:var(--link);opacity:.14}.line{fill:none;stroke:var(--link);stroke-width:1.5;vector-effect:non-scaling-stroke}
.limit{stroke:var(--bad);stroke-dasharray:5 4;vector-effect:non-scaling-stroke}.axis{stroke:var(--line);vector-effect:non-scaling-stroke}
.row{display:flex;flex-wrap:wrap;gap:6px 10px;align-items:center;margin-top:8px}
input,select,button{font:inherit;color:inherit;background:var(--panel);border:1px solid var(--soft);border-radius:4px;padding:4px 8px;max-width:100%}
button{cursor:pointer;background:var(--ink);color:var(--panel);border-color:var(--ink)}
fieldset{border:0;margin:0;padding:0}legend{float:left;padding:0;margin-right:10px}h3{font-size:13px;margin:10px 0 2px}.points{margin:6px 0 0;padding-left:20px}.points li{overflow-wrap:anywhere}
pre.command{background:var(--bar);border-radius:4px;padding:8px 10px;margin:8px 0;white-space:pre-wrap;overflow-wrap:anywhere}
html:not(.script) .needs-script{display:none}.muted{color:var(--soft)}
.login{max-width:420px;margin:10vh auto 0}
@media (max-width:720px){.top{padding:8px 12px}main{padding:12px 12px 24px}footer{padding:0 12px 20px}.panel{padding:10px}
.tick.minor{display:none}.facts{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px 12px}.reach{margin-left:0}.events{display:block}.events li{display:block}.events time{display:block}.events b{margin-right:6px}.under .source{display:block;margin-left:0}}
`;
