# ruff: noqa: SIM905 (a word a line would be 1,300 lines)
"""The word lists from which every training sentence is made.

Each class is one string of words; verbs are given in four forms (base, third person, past,
-ing), separated by slashes. Nothing here is taken from a corpus: the lists were written for this
recipe. A wider vocabulary is a longer list; nothing else has to change.
"""

NAMES = """Anna David Maria Peter Sarah Thomas Emma Jack Laura Martin Helen Robert Alice Daniel
Julia Oscar""".split()

PEOPLE = """brother sister mother father teacher doctor farmer friend neighbor child captain
engineer student driver writer painter singer speaker listener visitor user person woman man girl
boy king cook worker reader baker pilot guest team family crowd somebody everybody nobody""".split()

PERSONS = [p for p in PEOPLE if p not in {"somebody", "everybody", "nobody"}]

THINGS = """table window door bread apple radio letter book river garden kitchen street market
house road bridge mountain forest lake ship boat train station ticket school hospital office
church village city country island beach tree flower leaf bird dog cat horse fish cow lamp candle
mirror chair bed blanket pillow coat shirt shoe hat glove basket bottle cup plate bowl spoon knife
fork pan oven soup cheese butter milk egg salt sugar coffee tea water wine juice orange lemon
potato tomato onion rice cake dinner breakfast lunch song story music picture painting photograph
paper pencil pen camera phone computer screen keyboard button key lock wall roof floor stair room
corner clock bell ball game card ring rope hammer nail wheel engine car bicycle bus truck plane
cloud rain snow wind storm sun moon star sky fire smoke stone sand field hill valley path fence gate
farm tower castle museum theater stage""".split()

TECH = """compiler kernel graph tensor memory model processor cache loop thread register buffer
layer network encoder decoder token vector matrix clip sample signal frame filter weight gradient
batch pipeline schedule device chip core accelerator benchmark test error bug log file page row
column index pointer address stack queue tile node edge value number bit byte word sentence voice
sound noise speech microphone transcript figure measure latency bandwidth precision operation
instruction function program library server machine result question answer problem solution
reference difference layout order example change job step part side line place way time day week
month year hour minute second morning afternoon evening night summer winter spring pitch power
wave traffic data audio arithmetic movement work video browser version release code tool system
task engine format shape size length depth limit rule plan idea reason""".split()

PLURALS = """children people friends students workers engineers visitors users words sentences
numbers bits bytes tensors kernels graphs loops threads layers models tiles nodes edges values
caches buffers samples frames signals voices sounds clips questions answers problems results
errors jobs steps operations processors accelerators chips machines programs tests minutes seconds
hours days weeks years books letters apples flowers trees birds windows doors stories pictures
houses streets cars trains ships mountains rivers stars clouds things ways parts graphics cores
weights files pages compilers""".split()

ADJECTIVES = """small big large little old new young good bad great fast slow quick quiet loud
bright dark warm cold hot cool long short high low deep wide narrow heavy light soft hard strong
weak clean dirty dry wet empty full open early late easy simple difficult different same careful
busy happy sad angry tired hungry gentle kind honest patient clever strange common rare cheap
expensive modern parallel static dynamic sparse dense local global shared private public hidden
trusted correct wrong right whole half single double final main next last first red green blue
yellow white black gray brown silver golden round square flat sharp sweet bitter fresh lovely
beautiful important useful ready close far free safe""".split()

ADVERBS = """quickly slowly quietly carefully often never always sometimes rarely soon again today
tomorrow yesterday together alone early late already almost still nearly clearly gently finally
suddenly usually outside inside upstairs everywhere here there now then twice once later""".split()

DEGREES = "very quite rather too so almost really".split()

PREPOSITIONS = """in on under over behind near beside above below between through across along
around before after with without from into toward against inside at by to for of about past
beyond within""".split()

NUMBERS = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
ninety""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ONES = "one two three four five six seven eight nine".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()

VERBS = [
    tuple(forms.split("/"))
    for forms in """open/opens/opened/opening close/closes/closed/closing
move/moves/moved/moving write/writes/wrote/writing read/reads/read/reading
measure/measures/measured/measuring compare/compares/compared/comparing
clean/cleans/cleaned/cleaning carry/carries/carried/carrying find/finds/found/finding
lose/loses/lost/losing keep/keeps/kept/keeping hold/holds/held/holding
bring/brings/brought/bringing take/takes/took/taking give/gives/gave/giving
show/shows/showed/showing see/sees/saw/seeing hear/hears/heard/hearing
watch/watches/watched/watching make/makes/made/making build/builds/built/building
break/breaks/broke/breaking fix/fixes/fixed/fixing paint/paints/painted/painting
draw/draws/drew/drawing cut/cuts/cut/cutting wash/washes/washed/washing
sell/sells/sold/selling buy/buys/bought/buying want/wants/wanted/wanting
need/needs/needed/needing like/likes/liked/liking love/loves/loved/loving
know/knows/knew/knowing remember/remembers/remembered/remembering
forget/forgets/forgot/forgetting learn/learns/learned/learning teach/teaches/taught/teaching
study/studies/studied/studying test/tests/tested/testing start/starts/started/starting
stop/stops/stopped/stopping finish/finishes/finished/finishing change/changes/changed/changing
choose/chooses/chose/choosing use/uses/used/using touch/touches/touched/touching
turn/turns/turned/turning push/pushes/pushed/pushing pull/pulls/pulled/pulling
load/loads/loaded/loading store/stores/stored/storing copy/copies/copied/copying
compile/compiles/compiled/compiling compute/computes/computed/computing
multiply/multiplies/multiplied/multiplying fuse/fuses/fused/fusing split/splits/split/splitting
send/sends/sent/sending count/counts/counted/counting check/checks/checked/checking
trust/trusts/trusted/trusting hide/hides/hid/hiding press/presses/pressed/pressing
fit/fits/fit/fitting reach/reaches/reached/reaching follow/follows/followed/following
help/helps/helped/helping answer/answers/answered/answering call/calls/called/calling
leave/leaves/left/leaving cover/covers/covered/covering record/records/recorded/recording
encode/encodes/encoded/encoding decode/decodes/decoded/decoding
accept/accepts/accepted/accepting describe/describes/described/describing
explain/explains/explained/explaining improve/improves/improved/improving
repeat/repeats/repeated/repeating schedule/schedules/scheduled/scheduling
replace/replaces/replaced/replacing launch/launches/launched/launching
visit/visits/visited/visiting""".split()
]

INTRANSITIVES = [
    tuple(forms.split("/"))
    for forms in """walk/walks/walked/walking run/runs/ran/running wait/waits/waited/waiting
sleep/sleeps/slept/sleeping sing/sings/sang/singing speak/speaks/spoke/speaking
talk/talks/talked/talking listen/listens/listened/listening work/works/worked/working
play/plays/played/playing laugh/laughs/laughed/laughing fall/falls/fell/falling
grow/grows/grew/growing stand/stands/stood/standing sit/sits/sat/sitting
travel/travels/traveled/traveling return/returns/returned/returning
arrive/arrives/arrived/arriving stay/stays/stayed/staying live/lives/lived/living
come/comes/came/coming go/goes/went/going look/looks/looked/looking begin/begins/began/beginning
swim/swims/swam/swimming dance/dances/danced/dancing smile/smiles/smiled/smiling""".split()
]

# Words without a list of their own; the mixed sentences draw on them evenly.
SMALL = """the a an and or but if when while because that this these those it its he she we you
they I me him her us them my your his our their is are was were be been has have had do does did
will would can could must should may not no yes what who how why where which than as more most
much many few some any all every each both other another of out up down off back away too just
only even also let spend thank thanks please good hello welcome care cares matter hurry thousands
hundred million enough less until ago long anything nothing something everything coming talk
behind place says years person lot patience movement cheap takes big busy ask asking spend
careful network on often lovely becomes along once one by large loves power different before
anything path people use honest helps slow came wrong best you key answers finished yet closer
got get put end says say said think thinks thought somewhere noon stops down over""".split()
