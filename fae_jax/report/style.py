"""How the page looks, and the few lines of script it can do without."""

# Colours follow the data: features are blue, the latent is amber, pixels are green, whatever the section.
STYLE = """
:root{color-scheme:light dark;
--page:#faf9f6;--card:#fff;--ink:#1a1c20;--soft:#5c626d;--faint:#8b909a;--rule:#e4e1da;--wash:#f1efe9;
--features:#3257d4;--latent:#b96a04;--pixels:#1f7d5c;--good:#1b7a4d;--bad:#c03428;
--sans:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;--colour:var(--features)}
@media(prefers-color-scheme:dark){:root{
--page:#111317;--card:#181b20;--ink:#eceae5;--soft:#a3a8b2;--faint:#777d88;--rule:#2b2f37;--wash:#1e2228;
--features:#86a2ff;--latent:#f0ac4d;--pixels:#5cc79b;--good:#5fce94;--bad:#ff8376}}
*{box-sizing:border-box}
html{scroll-padding-top:4.5rem;-webkit-text-size-adjust:100%}
@media(prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 var(--sans);font-feature-settings:"kern","liga";
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main,.top,nav ul{width:min(1120px,100% - 3rem);margin-inline:auto}
h1,h2,h3,p,ul,ol,dl,figure{margin:0;padding:0}
ul,ol{list-style:none}
h1{font-size:clamp(2.1rem,5.2vw,3.4rem);line-height:1.06;letter-spacing:-.032em;font-weight:680;text-wrap:balance}
h2{font-size:1.55rem;line-height:1.2;letter-spacing:-.018em;font-weight:640}
h3{font-size:.95rem;line-height:1.4;font-weight:600}
i{font-style:normal}
code,pre{font:.84rem/1.65 var(--mono)}
.lead{color:var(--soft);max-width:44rem;margin-top:.5rem}

.top{padding:4.5rem 0 2.2rem}
.kicker{font-size:.82rem;letter-spacing:.09em;text-transform:uppercase;color:var(--soft);font-weight:600;
margin-bottom:1rem}
.top .lead{font-size:1.1rem;line-height:1.55;margin-top:1.1rem}
.top .facts{margin-top:1.6rem}
.summary{display:inline-flex;align-items:center;gap:.55rem;margin-top:1.5rem;font-weight:600}
.sign{display:inline-grid;place-items:center;width:1.25rem;height:1.25rem;border-radius:50%;flex:none;
font-size:.72rem;font-weight:700;line-height:1;color:var(--page);background:var(--faint)}
.reached>.sign,.reached .status .sign{background:var(--good)}
.missed>.sign,.missed .status .sign{background:var(--bad)}
.top{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,23rem);gap:2rem 4.5rem;align-items:center}
.hero{margin:0}
.hero img{display:block;width:100%;height:auto;image-rendering:pixelated;border-radius:8px;background:var(--rule)}
.hero figcaption{margin-top:.6rem}

nav{position:sticky;top:0;z-index:5;background:color-mix(in srgb,var(--page) 88%,transparent);
backdrop-filter:blur(10px);border-block:1px solid var(--rule)}
nav ul{display:flex;gap:1.5rem;overflow-x:auto;scrollbar-width:none;white-space:nowrap}
nav a{display:block;padding:.75rem 0;font-size:.86rem;color:var(--soft);text-decoration:none;font-weight:500}
nav a:hover,nav a:focus-visible{color:var(--ink)}
nav a.idle{color:var(--faint)}

section{padding:3.4rem 0 0}
section>header{display:flex;align-items:baseline;gap:.8rem}
.ordinal{font-weight:640;font-size:1.55rem;line-height:1.2;color:var(--colour);letter-spacing:-.01em}
.state{white-space:nowrap;font-size:.8rem;font-weight:600;
color:var(--latent);border:1px solid currentColor;border-radius:99px;
padding:0 .6rem}
.waiting{margin-top:.8rem;color:var(--soft)}
.waiting code{background:var(--wash);border-radius:5px;padding:.15rem .45rem;color:var(--ink)}

.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17.5rem),1fr));gap:1px;margin-top:1.4rem;
background:var(--rule);border:1px solid var(--rule);border-radius:12px;overflow:hidden}
.tile{background:var(--card);padding:1.25rem 1.35rem 1.3rem}
.tile h3{color:var(--soft);font-weight:550}
.value{font-size:2.15rem;line-height:1.2;font-weight:640;letter-spacing:-.03em;margin-top:.15rem}
.pending .value{color:var(--faint)}
.status{display:flex;align-items:center;gap:.1rem .45rem;flex-wrap:wrap;
font-size:.84rem;color:var(--soft);margin-top:.3rem}
.status .said{font-weight:600;margin-right:.35rem}
.reached .said{color:var(--good)}.missed .said{color:var(--bad)}
.tile .sign{width:1.05rem;height:1.05rem;font-size:.62rem}
.meaning{font-size:.87rem;line-height:1.5;color:var(--soft);margin-top:.7rem}

.pipeline{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:1.8rem 1.6rem 1.3rem;
margin-top:1.4rem}
.way{display:grid;grid-template-columns:auto 1fr auto 1fr auto 1fr auto 1fr auto;align-items:start}
.node{display:flex;flex-direction:column;align-items:center;text-align:center;min-width:5.4rem;
font-size:.84rem;line-height:1.4;--colour:var(--pixels)}
.node.features{--colour:var(--features)}.node.latent{--colour:var(--latent)}
.node b{font-size:1.02rem;font-weight:640;margin-top:.55rem;color:var(--colour)}
.node span{color:var(--soft)}
.block{height:136px;display:grid;place-items:center}
.block i{display:block;width:2.1rem;height:var(--size);border-radius:6px;background:var(--colour);opacity:.9}
.arrow{position:relative;height:136px;display:flex;flex-direction:column;justify-content:center;text-align:center;
font-size:.82rem;line-height:1.35;color:var(--soft);padding:0 .3rem}
.arrow b{font-weight:600;color:var(--ink);position:absolute;inset:auto 0 calc(50% + .6rem)}
.arrow .figures,.arrow .note{position:absolute;inset:calc(50% + .6rem) 0 auto}
.arrow .figures+.note{inset:calc(50% + 1.9rem) 0 auto}
.shaft{height:1.5px;background:var(--faint);position:relative;margin:0 .2rem}
.shaft:after{content:"";position:absolute;right:0;top:50%;width:.42rem;height:.42rem;border:solid var(--faint);
border-width:1.5px 1.5px 0 0;transform:translateY(-50%) rotate(45deg)}
.figures{white-space:nowrap}
.note{color:var(--soft)}
.dream{display:flex;flex-wrap:wrap;gap:.15rem .6rem;align-items:baseline;border-top:1px solid var(--rule);
margin-top:1.3rem;padding-top:1.1rem;font-size:.88rem;color:var(--soft)}
.dream b{color:var(--ink);font-weight:600}.dream .z{color:var(--latent)}
.to{color:var(--faint)}

.stage{--colour:var(--features)}
#cache,#generator{--colour:var(--latent)}#pixels,#finetune{--colour:var(--pixels)}
.passage{margin-top:.6rem;display:flex;flex-wrap:wrap;gap:.1rem .6rem;font-weight:550}
.passage .leaves{color:var(--colour)}
.columns{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,7fr);gap:1rem 3.2rem;align-items:start}
.columns p+p,.stage>p+p{color:var(--soft);margin-top:.75rem;max-width:44rem}
.facts{display:flex;flex-wrap:wrap;gap:.9rem 1.9rem;margin-top:1.3rem}
.facts dt{font-size:.78rem;color:var(--soft)}
.facts dd{margin:0;font-weight:600;max-width:24rem}

.change{color:var(--soft);font-weight:400}
.change i{color:var(--faint);margin:0 .35em}
.change b{color:var(--ink);font-weight:600}
.curve h3{display:flex;justify-content:space-between;gap:1rem;margin:.6rem 0 .7rem 3.4rem}
.axis{font-size:.76rem;color:var(--faint);text-align:right}
.chart{position:relative;margin:0 0 1.7rem 3.4rem;height:228px}
.plot,.plot svg{position:absolute;inset:0;width:100%;height:100%}
svg{display:block;overflow:visible}
.rule{stroke:var(--rule);vector-effect:non-scaling-stroke;stroke-width:1}
.line{fill:none;stroke:var(--colour);stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round;
stroke-linecap:round}
.raw{fill:none;stroke:var(--colour);stroke-width:1;opacity:.32;vector-effect:non-scaling-stroke}
.area{fill:var(--colour);opacity:.07;stroke:none}
.tick{position:absolute;font-size:.76rem;line-height:1;color:var(--soft);white-space:nowrap}
.tick.y{right:calc(100% + .6rem);transform:translateY(-50%)}
.tick.x{top:calc(100% + .5rem);transform:translateX(-50%)}
.tick.x[style="left:0.00%"]{transform:none}
.tick.x[style="left:100.00%"]{transform:translateX(-100%)}
.sparks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,9.8rem),1fr));gap:1.3rem 1.9rem;
margin-top:1.6rem;border-top:1px solid var(--rule);padding-top:1.2rem}
.sparks li{display:flex;flex-direction:column;font-size:.82rem;line-height:1.4;min-width:0}
.sparks .name{color:var(--soft)}
.spark{height:42px;margin:.35rem 0 .4rem}.spark svg{width:100%;height:100%}
.spark .line{stroke-width:1.6}

.frames{overflow-x:auto;background:var(--wash);border-radius:10px;padding:.9rem}
figure{margin-top:1.6rem}
.frames img{display:block;height:auto;width:100%;border-radius:3px;margin-inline:auto}
.frames img[hidden]{display:none}
img.sharp{image-rendering:pixelated}
figcaption{font-size:.85rem;color:var(--soft);margin-top:.7rem;max-width:48rem}
.slider{display:flex;align-items:center;gap:.9rem;margin-top:.7rem;font-size:.82rem;color:var(--soft);max-width:30rem}
.slider input{flex:1;accent-color:var(--colour);min-width:0;margin:0}
.slider output{min-width:6.2em;text-align:right;color:var(--ink);font-weight:600}
.slider span{white-space:nowrap}

.sets{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:2.4rem 3rem;
margin-top:1.6rem}
.sets h3{font-size:1.1rem}
.set figure{margin-top:.8rem}
.set .facts{gap:.7rem 1.6rem;font-size:.92rem}
.bar{display:block;height:.5rem;border-radius:99px;background:var(--features);min-width:2px}
.bar.b0{background:var(--faint)}.bar.b1{background:var(--latent)}.bar.b2{background:var(--pixels)}
.perclass{columns:2;column-gap:3rem}
.perclass li{display:grid;grid-template-columns:minmax(1.6rem,auto) 1fr;gap:.9rem;align-items:center;
break-inside:avoid;
padding:.32rem 0}
.perclass b{font-weight:600;text-align:right;max-width:11rem}
.bars{display:grid;gap:.22rem}
.bars>div{display:flex;align-items:center;padding-right:3.9rem;position:relative;height:.8rem}
.bars span{position:absolute;right:0;font-size:.78rem;line-height:1;color:var(--soft)}
.legend{display:inline-flex;gap:1.1rem;margin-left:1.1rem}
.legend span{display:inline-flex;align-items:center;gap:.4rem}
.legend .bar{display:inline-block;width:1.1rem}

.table{overflow-x:auto;margin-top:1.5rem}
table{border-collapse:collapse;font-size:.92rem;min-width:min(100%,34rem)}
th,td{padding:.55rem 1.6rem .55rem 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:middle}
thead th{font-size:.8rem;font-weight:500;color:var(--soft)}
tbody th{font-weight:550}
tfoot th,tfoot td{border-bottom:0;font-weight:640}
td{white-space:nowrap}
.tables{display:grid;gap:0 3.4rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));
align-items:start}
.times table{width:100%}.times .wide{width:66%;padding-right:0}
.aside{color:var(--faint)}.aside .bar{background:var(--rule)}
#more .table td{white-space:normal}

.commands{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:2rem 3rem;
margin-top:1.5rem}
.command{min-width:0}
.command p{color:var(--soft);font-size:.9rem;margin:.1rem 0 .6rem}
pre{margin:0;position:relative;background:var(--wash);border-radius:8px;padding:.85rem 1rem;white-space:pre-wrap;
overflow-wrap:anywhere}
pre code{display:block;padding-left:1.4em;text-indent:-1.4em}
.command{position:relative}
.copy{position:absolute;right:0;top:0;font:500 .78rem var(--sans);color:var(--soft);background:none;border:0;
padding:.15rem 0;cursor:pointer}
.copy:hover,.copy:focus-visible{color:var(--ink)}
footer{width:min(1120px,100% - 3rem);margin:4.5rem auto 3rem;padding-top:1.2rem;border-top:1px solid var(--rule);
font-size:.85rem;color:var(--soft)}
:focus-visible{outline:2px solid var(--features);outline-offset:3px;border-radius:3px}

@media(max-width:60rem){.top{grid-template-columns:minmax(0,1fr)}.hero{max-width:26rem}
.columns{grid-template-columns:minmax(0,1fr)}.curve h3,.chart{margin-left:3rem}
.way{display:block;max-width:24rem}
.node{display:grid;grid-template-columns:8.6rem auto 1fr;column-gap:.8rem;text-align:left;align-items:center;
min-width:0}
.node .block{grid-row:1/5;height:auto;justify-content:end}
.block i{width:var(--size);height:1.9rem}
.node b{margin:0;grid-column:2;grid-row:1}.node span{grid-column:2/4}.node b+span{grid-column:3;grid-row:1}
.arrow{height:auto;display:grid;grid-template-columns:8.6rem 1fr;column-gap:.8rem;text-align:left;padding:.7rem 0}
.arrow b,.arrow .figures,.arrow .note,.arrow .figures+.note{position:static;grid-column:2}
.shaft{grid-column:1;grid-row:1/4;justify-self:end;width:1.5px;height:100%;min-height:1.4rem;margin:0 1.05rem 0 0}
.shaft:after{right:50%;top:auto;bottom:0;transform:translateX(50%) rotate(135deg)}}
@media(max-width:40rem){main,.top,nav ul,footer{width:calc(100% - 2.2rem)}
.top{padding:2.6rem 0 1.6rem}section{padding-top:2.7rem}
.frames img.broad{min-width:36rem}.perclass{columns:1}.chart{height:190px}
.pipeline{padding:1.3rem 1.1rem}.node,.arrow{grid-template-columns:6rem auto 1fr}
.arrow{grid-template-columns:6rem 1fr}
.block i{max-width:6rem}.tile{padding:1.05rem 1.15rem 1.1rem}.times .wide{width:45%}th,td{padding-right:1.1rem}}
@media print{nav,.copy,.slider{display:none}section,.tile,figure{break-inside:avoid}}
"""

# The slider shows one preview at a time; a button copies each block of commands.
SCRIPT = """
for(const box of document.querySelectorAll('.scrub')){const slider=box.querySelector('input');if(!slider)continue;
const frames=[...box.querySelectorAll('img')],said=box.querySelector('output');
slider.addEventListener('input',()=>{frames.forEach((frame,i)=>{frame.hidden=i!=slider.value});
said.textContent='step '+frames[slider.value].dataset.step})}
if(navigator.clipboard)for(const box of document.querySelectorAll('.command')){
const button=document.createElement('button');button.type='button';button.className='copy';button.textContent='Copy';
button.addEventListener('click',()=>navigator.clipboard.writeText(
[...box.querySelectorAll('code')].map(line=>line.textContent).join('\\n')).then(()=>{
button.textContent='Copied';setTimeout(()=>{button.textContent='Copy'},1500)}));box.append(button)}
"""
