# ruff: noqa: SIM905 (a word a line would be 1,300 lines)
"""The word lists from which every training sentence is made.

Each class is one string of words; verbs are given in four forms (base, third person, past,
-ing), separated by slashes. Nothing here is taken from a corpus: the lists were written for this
recipe. A wider vocabulary is a longer list; nothing else has to change.
"""

NAMES = """Anna David Maria Peter Sarah Thomas Emma Jack Laura Martin Helen Robert Alice Daniel
Julia Oscar
George Henry William James Michael Susan Karen Linda Nancy Emily Sophie Lucas Victor Simon Clara
Frank Edward Rachel Hannah Monica""".split()

PEOPLE = """brother sister mother father teacher doctor farmer friend neighbor child captain
engineer student driver writer painter singer speaker listener visitor user person woman man girl
boy king cook worker reader baker pilot guest team family crowd somebody everybody nobody
lawyer nurse actor artist dancer dentist soldier sailor mayor president manager secretary
customer stranger prisoner judge coach player runner winner leader owner member partner uncle
aunt cousin husband wife grandmother grandfather baby lady gentleman tourist passenger mechanic
carpenter tailor butcher professor scientist researcher developer designer programmer musician
composer editor journalist""".split()

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
farm tower castle museum theater stage
airport apartment balcony ladder carpet curtain sofa desk drawer shelf cupboard refrigerator
kettle towel soap toothbrush blouse jacket trousers pocket belt umbrella wallet purse suitcase
backpack envelope stamp newspaper magazine dictionary calendar notebook ruler scissors needle
thread shovel bucket brush broom garage helmet motorcycle tractor helicopter rocket balloon
parachute anchor harbor lighthouse desert jungle volcano waterfall cave cliff meadow orchard
vineyard barn stable kennel cage nest feather wing tail paw horn spider beetle butterfly
elephant tiger lion monkey rabbit squirrel turtle dolphin eagle pigeon chicken turkey sheep goat
donkey camel snake lizard frog carrot cabbage pepper garlic mushroom spinach pumpkin cucumber
banana grape strawberry cherry peach melon coconut chocolate candy sandwich pizza salad sausage
bacon noodle cookie pancake honey vinegar mustard ketchup lemonade beer statue fountain palace
temple cathedral prison factory warehouse laboratory library restaurant bakery pharmacy
supermarket playground stadium gymnasium swimming pool tunnel highway sidewalk crossing elevator
escalator staircase ceiling chimney fireplace basement attic hallway violin piano guitar trumpet
drum flute orchestra concert festival birthday wedding holiday vacation journey adventure
ceremony parade puzzle toy doll kite ladder bandage medicine ambulance injury fever headache
stomach shoulder elbow finger thumb ankle knee forehead eyebrow chin throat muscle
skeleton""".split()

TECH = """compiler kernel graph tensor memory model processor cache loop thread register buffer
layer network encoder decoder token vector matrix clip sample signal frame filter weight gradient
batch pipeline schedule device chip core accelerator benchmark test error bug log file page row
column index pointer address stack queue tile node edge value number bit byte word sentence voice
sound noise speech microphone transcript figure measure latency bandwidth precision operation
instruction function program library server machine result question answer problem solution
reference difference layout order example change job step part side line place way time day week
month year hour minute second morning afternoon evening night summer winter spring pitch power
wave traffic data audio arithmetic movement work video browser version release code tool system
task engine format shape size length depth limit rule plan idea reason
algorithm parameter variable constant argument statement expression interpreter debugger
profiler scheduler allocator driver firmware hardware software internet protocol packet router
socket client cluster container database query transaction record schema partition replica
backup snapshot checkpoint dataset label prediction accuracy probability distribution entropy
variance average median optimizer convolution attention embedding vocabulary prompt inference
training activation normalization projection transformer dimension channel stride spectrum
spectrogram frequency amplitude echo rhythm melody harmony volume speaker headphone amplifier
antenna battery voltage circuit transistor sensor laser satellite telescope microscope robot
drone printer scanner projector television keyboard monitor desktop laptop tablet password
account message email document folder archive interface framework package dependency assembler
bottleneck throughput overhead deadline budget contract report meeting project department
company industry economy market science chemistry physics biology mathematics geometry history
geography language grammar paragraph chapter""".split()

PLURALS = """children people friends students workers engineers visitors users words sentences
numbers bits bytes tensors kernels graphs loops threads layers models tiles nodes edges values
caches buffers samples frames signals voices sounds clips questions answers problems results
errors jobs steps operations processors accelerators chips machines programs tests minutes seconds
hours days weeks years books letters apples flowers trees birds windows doors stories pictures
houses streets cars trains ships mountains rivers stars clouds things ways parts graphics cores
weights files pages compilers
algorithms parameters variables functions instructions dimensions channels vectors matrices
operators programmers teachers doctors farmers soldiers sailors neighbors brothers sisters
parents tourists passengers customers players tables chairs bottles glasses plates knives spoons
envelopes newspapers magazines bicycles airplanes animals horses chickens rabbits elephants
monkeys butterflies carrots potatoes tomatoes mushrooms bananas strawberries cookies sandwiches
buildings bridges islands cities villages countries languages colors shapes dollars miles inches
pounds months centuries mornings evenings fingers shoulders dreams memories secrets promises
mistakes decisions opinions experiments measurements statistics benchmarks transistors batteries
satellites robots messages documents passwords""".split()

ADJECTIVES = """small big large little old new young good bad great fast slow quick quiet loud
bright dark warm cold hot cool long short high low deep wide narrow heavy light soft hard strong
weak clean dirty dry wet empty full open early late easy simple difficult different same careful
busy happy sad angry tired hungry gentle kind honest patient clever strange common rare cheap
expensive modern parallel static dynamic sparse dense local global shared private public hidden
trusted correct wrong right whole half single double final main next last first red green blue
yellow white black gray brown silver golden round square flat sharp sweet bitter fresh lovely
beautiful important useful ready close far free safe
ancient anxious available average awful basic blind boring brave brief brilliant broad calm
central certain charming cheerful chemical civil classic clumsy comfortable complete complex
confident constant creative crowded cruel curious current daily damaged dangerous dead dear
delicate delicious digital distant dramatic eager eastern educated efficient elegant electric
electronic endless enormous entire equal essential even exact excellent exciting exotic expected
external familiar famous fantastic fashionable favorite fierce financial firm flexible foolish
foreign formal former fortunate fragile frequent friendly frozen general generous genuine giant
glad gorgeous grateful guilty handsome healthy helpful historic hollow horrible huge human
humble ideal identical illegal imaginary immediate impossible impressive independent individual
industrial informal innocent internal international invisible jealous junior keen lazy legal
likely limited liquid logical lonely loose lucky magic magnetic major married massive maximum
medical medium mental minimum minor mobile mysterious national native natural negative nervous
noisy normal northern nuclear numerous obvious occasional odd official optical ordinary original
painful peaceful perfect permanent personal physical plastic pleasant polite political popular
positive possible potential powerful practical precious pregnant previous primary productive
professional proper proud pure random rapid rational regular relative reliable remarkable remote
responsible rich ridiculous romantic rough royal rural scary scientific secure senior sensible
sensitive separate serious several severe shallow shiny shy silent silly similar sincere skilled
sleepy slippery smooth social sophisticated southern spare special specific splendid stable
standard steady stiff strict stubborn stupid successful sudden suitable surprised suspicious
technical temporary terrible thick thin thirsty tiny tough traditional tropical typical ugly
ultimate unable unhappy uniform unique universal unknown unusual upset urban urgent usual vague
valid valuable various vast vertical violent virtual visible vital vivid western wild willing
wise wonderful wooden worried""".split()

ADVERBS = """quickly slowly quietly carefully often never always sometimes rarely soon again today
tomorrow yesterday together alone early late already almost still nearly clearly gently finally
suddenly usually outside inside upstairs everywhere here there now then twice once later
absolutely actually anyway apparently approximately automatically badly basically briefly
certainly completely constantly correctly currently definitely deliberately directly easily
especially eventually exactly extremely fairly forever fortunately frequently generally happily
honestly hopefully immediately instead largely lately literally mainly maybe meanwhile mostly
naturally necessarily normally obviously occasionally originally otherwise particularly
perfectly perhaps possibly precisely presumably previously probably properly randomly rapidly
recently regularly relatively secretly seriously simply slightly smoothly softly somehow
specifically strongly successfully surely technically temporarily thoroughly tonight totally
typically unfortunately downstairs backwards forward abroad apart seldom forever""".split()

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

PARTICLES = "down up away back again over out in off together".split()
OBJECTS = "me him her us them you".split()
TIMES = "morning afternoon evening night noon day week month year summer winter hour minute".split()

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
visit/visits/visited/visiting
accompany/accompanies/accompanied/accompanying achieve/achieves/achieved/achieving
admire/admires/admired/admiring adopt/adopts/adopted/adopting advise/advises/advised/advising
affect/affects/affected/affecting allow/allows/allowed/allowing
analyze/analyzes/analyzed/analyzing announce/announces/announced/announcing
approve/approves/approved/approving arrange/arranges/arranged/arranging
attach/attaches/attached/attaching attack/attacks/attacked/attacking
avoid/avoids/avoided/avoiding bake/bakes/baked/baking believe/believes/believed/believing
borrow/borrows/borrowed/borrowing calculate/calculates/calculated/calculating
cancel/cancels/canceled/canceling capture/captures/captured/capturing
catch/catches/caught/catching celebrate/celebrates/celebrated/celebrating
collect/collects/collected/collecting combine/combines/combined/combining
complete/completes/completed/completing connect/connects/connected/connecting
consider/considers/considered/considering control/controls/controlled/controlling
convert/converts/converted/converting create/creates/created/creating
decorate/decorates/decorated/decorating defend/defends/defended/defending
delay/delays/delayed/delaying delete/deletes/deleted/deleting
deliver/delivers/delivered/delivering demand/demands/demanded/demanding
deploy/deploys/deployed/deploying destroy/destroys/destroyed/destroying
develop/develops/developed/developing discover/discovers/discovered/discovering
discuss/discusses/discussed/discussing display/displays/displayed/displaying
divide/divides/divided/dividing double/doubles/doubled/doubling enjoy/enjoys/enjoyed/enjoying
examine/examines/examined/examining exchange/exchanges/exchanged/exchanging
expect/expects/expected/expecting export/exports/exported/exporting feed/feeds/fed/feeding
fill/fills/filled/filling fold/folds/folded/folding gather/gathers/gathered/gathering
guard/guards/guarded/guarding handle/handles/handled/handling hunt/hunts/hunted/hunting
identify/identifies/identified/identifying ignore/ignores/ignored/ignoring
imagine/imagines/imagined/imagining include/includes/included/including
inspect/inspects/inspected/inspecting install/installs/installed/installing
invent/invents/invented/inventing invite/invites/invited/inviting join/joins/joined/joining
kick/kicks/kicked/kicking lift/lifts/lifted/lifting limit/limits/limited/limiting
lock/locks/locked/locking manage/manages/managed/managing mention/mentions/mentioned/mentioning
notice/notices/noticed/noticing offer/offers/offered/offering
optimize/optimizes/optimized/optimizing order/orders/ordered/ordering
organize/organizes/organized/organizing photograph/photographs/photographed/photographing
plant/plants/planted/planting practice/practices/practiced/practicing
predict/predicts/predicted/predicting prefer/prefers/preferred/preferring
prepare/prepares/prepared/preparing produce/produces/produced/producing
promise/promises/promised/promising protect/protects/protected/protecting
prove/proves/proved/proving provide/provides/provided/providing
publish/publishes/published/publishing punish/punishes/punished/punishing
raise/raises/raised/raising receive/receives/received/receiving
recognize/recognizes/recognized/recognizing recommend/recommends/recommended/recommending
reduce/reduces/reduced/reducing refuse/refuses/refused/refusing
reject/rejects/rejected/rejecting release/releases/released/releasing
remove/removes/removed/removing rent/rents/rented/renting repair/repairs/repaired/repairing
request/requests/requested/requesting respect/respects/respected/respecting
reveal/reveals/revealed/revealing ride/rides/rode/riding save/saves/saved/saving
scratch/scratches/scratched/scratching select/selects/selected/selecting
serve/serves/served/serving shake/shakes/shook/shaking share/shares/shared/sharing
shoot/shoots/shot/shooting simplify/simplifies/simplified/simplifying
solve/solves/solved/solving spread/spreads/spread/spreading steal/steals/stole/stealing
suggest/suggests/suggested/suggesting supply/supplies/supplied/supplying
support/supports/supported/supporting surprise/surprises/surprised/surprising
throw/throws/threw/throwing train/trains/trained/training
transcribe/transcribes/transcribed/transcribing translate/translates/translated/translating
transform/transforms/transformed/transforming understand/understands/understood/understanding
update/updates/updated/updating upload/uploads/uploaded/uploading
verify/verifies/verified/verifying wrap/wraps/wrapped/wrapping
download/downloads/downloaded/downloading predict/predicts/predicted/predicting
quantize/quantizes/quantized/quantizing render/renders/rendered/rendering
allocate/allocates/allocated/allocating""".split()
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
swim/swims/swam/swimming dance/dances/danced/dancing smile/smiles/smiled/smiling
agree/agrees/agreed/agreeing appear/appears/appeared/appearing behave/behaves/behaved/behaving
climb/climbs/climbed/climbing complain/complains/complained/complaining
continue/continues/continued/continuing cry/cries/cried/crying depend/depends/depended/depending
disappear/disappears/disappeared/disappearing dream/dreams/dreamed/dreaming
escape/escapes/escaped/escaping exist/exists/existed/existing fail/fails/failed/failing
fight/fights/fought/fighting float/floats/floated/floating fly/flies/flew/flying
happen/happens/happened/happening jump/jumps/jumped/jumping knock/knocks/knocked/knocking
lie/lies/lied/lying march/marches/marched/marching pause/pauses/paused/pausing
pray/prays/prayed/praying rest/rests/rested/resting rise/rises/rose/rising
shout/shouts/shouted/shouting succeed/succeeds/succeeded/succeeding
vanish/vanishes/vanished/vanishing wander/wanders/wandered/wandering
whisper/whispers/whispered/whispering whistle/whistles/whistled/whistling""".split()
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
got get put end says say said think thinks thought somewhere noon stops down over
about above according across although among around aside became become bigger better beneath
besides between bottom cannot couple despite during either else enjoy except exciting faster
slower smaller larger longer shorter fewer further given goes gone happen happened happens
however hundreds inside itself myself yourself himself herself themselves ourselves kind known
least lots made make maybe middle minus mine none ones onto opposite ought ours outside per plus
rather same seem seemed seems shall since sort such theirs though till together top toward twice
unless upon usually versus whatever whenever wherever whether whichever whoever whose within
worse worst yours percent half quarter dozen billion zero thing thousand
point born course well costs asked times tell tells told telling""".split()

# The small words that join the others; of those that sound alike, the most frequent.
LINKS = """the a an and or but if when while that this it he she we you they I me him her us them my
your his our their is are was were be been has have had do does did will would can could must should
may not no what who how why where which than as more most many few some any all every each other of
out up down off away to in on at by for from with one two before after then so there now here again
into over only even just these those its about because once never such back""".split()

# Words that sound like another of the lists: only a sentence that makes sense can tell them apart,
# so the mixed ones leave them out.
ALIKE = set(
    """I allowed aunt be blue break buy by choose close core course cruel days dear do
eight find flower for four great guest hear heard here high him his horse hour its kernel key
knew know knows lie lock made main minute morning muscle new night no not one or our past path
patience plane pray rain raise raised raises read reads red rest ride right road rode rose rough
see sell sent side some stair steal sun tail their there threw through to too two wait way weak
week weight where whether which whole would wrap wrapped wraps write writes wrote
""".split()
)
