"""
A small set of talk that is rich in concepts, with questions: persons, pets, places, firms, things,
in English and French. Written for this measurement.

A `*` marks the evidence of the story's questions, by number. Most questions name one concept and
are answered where another is named; the last of each story is answered where its own words are, so
that harm would show.
"""

# (relations, talk as (speaker, text), questions as (question, places of its evidence in the talk))
STORIES = (
    (
        [("Alice", "has a dog", "Rex"), ("Alice", "lives in", "Annecy")],
        [
            ("alice", "We got home late and Rex had chewed the sofa again."),
            ("alice", "The vet says Rex must lose two kilos before summer."),
            ("alice", "At night he snores in the basket by the stove, does Rex."),
            ("bob", "My mother called, she has a cold."),
            ("alice", "There is fog over Annecy all week, one cannot see the lake."),
            ("alice", "I signed up for the pottery course on Thursdays."),
        ],
        [
            ("Where does Alice's dog sleep?", [2]),
            ("What did the dog of Alice destroy?", [0]),
            ("How heavy may Alice's dog be?", [1]),
            ("What is the weather like where Alice lives?", [4]),
            ("Which course did Alice sign up for?", [5]),
        ],
    ),
    (
        [("Marc", "travaille chez", "Isoplan"), ("Marc", "est marié à", "Sophie")],
        [
            ("marc", "Chez Isoplan ils ferment le bureau de Grenoble au printemps."),
            ("marc", "Sophie a trouvé un poste d'infirmière à l'hôpital."),
            ("marc", "J'ai enfin réparé le vélo, la chaîne était rouillée."),
            ("lea", "Sophie m'a dit qu'elle déteste les huîtres."),
            ("marc", "La cantine d'Isoplan sert du poisson le vendredi."),
        ],
        [
            ("Que se passe-t-il là où Marc travaille ?", [0]),
            ("Quel est le métier de la femme avec qui Marc est marié ?", [1]),
            ("Qu'est-ce que la mariée de Marc ne mange pas ?", [3]),
            ("Que répare Marc ?", [2]),
        ],
    ),
    (
        [("Priya", "sister of", "Anjali"), ("Priya", "drives", "Blue Heron")],
        [
            ("priya", "Anjali moved to Toronto to study glaciers."),
            ("priya", "The Blue Heron needs a new clutch, four hundred pounds."),
            ("tom", "Has Anjali finished her thesis yet?"),
            ("priya", "Blue Heron failed its inspection because of the brakes."),
            ("priya", "I made lemon pickle from grandmother's recipe."),
        ],
        [
            ("What does Priya's sister study?", [0]),
            ("What is broken in the car that Priya drives?", [1, 3]),
            ("What recipe did Priya make?", [4]),
        ],
    ),
    (
        [("Gaston", "a un chat", "Moustache"), ("Gaston", "habite à", "Villefranche")],
        [
            ("gaston", "Moustache a encore renversé le pot de basilic."),
            ("gaston", "Le marché de Villefranche déménage sur la place haute."),
            ("rose", "Moustache doit être vacciné en mars."),
            ("gaston", "Le genou me fait mal dès qu'il pleut."),
            ("gaston", "À Villefranche on a planté des tilleuls devant l'école."),
        ],
        [
            ("Quelle bêtise a faite le chat de Gaston ?", [0]),
            ("Quand le chat de Gaston voit-il le vétérinaire ?", [2]),
            ("Quoi de neuf là où habite Gaston ?", [1, 4]),
            ("Où Gaston a-t-il mal ?", [3]),
        ],
    ),
    (
        [("Nora", "works for", "Kestrel Labs"), ("Kestrel Labs", "makes", "Windhover")],
        [
            ("nora", "Kestrel Labs cancelled the summer party."),
            ("nora", "The new office of Kestrel Labs has no windows at all."),
            ("ivan", "Windhover crashed twice during the demo."),
            ("nora", "My flight lands at six, please keep the soup warm."),
        ],
        [
            ("What is the office like where Nora works?", [1]),
            ("What was called off by the firm Nora works for?", [0]),
            ("How did the product that Kestrel Labs makes do?", [2]),
            ("When does Nora's flight land?", [3]),
        ],
    ),
    (
        [("Théo", "joue du", "Stradella"), ("Théo", "a pour professeur", "Madame Vasseur")],
        [
            ("theo", "Une touche du Stradella reste coincée depuis lundi."),
            ("theo", "Madame Vasseur part à la retraite en juin."),
            ("mina", "J'ai croisé Madame Vasseur au marché, elle vend son piano."),
            ("theo", "Mon frère a cassé ses lunettes de ski."),
        ],
        [
            ("Qu'arrive-t-il à l'accordéon dont joue Théo ?", [0]),
            ("Que vend le professeur de Théo ?", [2]),
            ("Quand le professeur de Théo s'arrête-t-il ?", [1]),
            ("Qui a cassé des lunettes, le frère de Théo ?", [3]),
        ],
    ),
    (
        [("Sam", "allergic to", "cashews"), ("Sam", "friend of", "Oliveira")],
        [
            ("sam", "The curry had cashews in it and I spent the night in hospital."),
            ("sam", "Oliveira is opening a bakery near the harbour."),
            ("kim", "Oliveira burnt the first forty loaves."),
            ("sam", "We painted the fence green over the weekend."),
        ],
        [
            ("What happened because Sam is allergic?", [0]),
            ("What is Sam's friend opening?", [1]),
            ("What went wrong for the friend of Sam?", [2]),
            ("Which colour did Sam paint the fence?", [3]),
        ],
    ),
    (
        [("Jeanne", "a pour fille", "Lucie"), ("Jeanne", "tient", "La Mirabelle")],
        [
            ("jeanne", "Lucie passe son bac cette année, elle ne dort plus."),
            ("jeanne", "La Mirabelle sera fermée du dix au vingt août."),
            ("paul", "On a mangé une tarte aux figues à La Mirabelle."),
            ("jeanne", "Lucie a choisi la médecine, finalement."),
            ("jeanne", "Mon ordinateur refuse de s'allumer."),
        ],
        [
            ("Quel examen passe la fille de Jeanne ?", [0]),
            ("Quelles études a choisies la fille de Jeanne ?", [3]),
            ("Quand le restaurant que tient Jeanne est-il fermé ?", [1]),
            ("Qu'est-ce qui ne marche plus chez Jeanne, son ordinateur ?", [4]),
        ],
    ),
    (
        [("Edith", "plays for", "Salt Ferry"), ("Edith", "rides", "Juniper")],
        [
            ("edith", "Salt Ferry lost three to one in the rain."),
            ("edith", "Juniper refused every fence this morning."),
            ("joe", "The coach of Salt Ferry has resigned."),
            ("edith", "I am reading a book about lighthouses."),
            ("edith", "Juniper needs new shoes, the farrier comes on Tuesday."),
        ],
        [
            ("How did the team do that Edith plays for?", [0, 2]),
            ("What did the horse that Edith rides refuse?", [1]),
            ("When does the farrier see the horse that Edith rides?", [4]),
            ("What book is Edith reading?", [3]),
        ],
    ),
    (
        [("Karim", "prépare", "le Grand Raid"), ("Karim", "frère de", "Yanis")],
        [
            ("karim", "Le Grand Raid part de Saint-Pierre en octobre."),
            ("karim", "Yanis s'est acheté une moto d'occasion."),
            ("lina", "Yanis a raté son train et dort à la gare."),
            ("karim", "Ma plante grasse a fleuri ce matin."),
        ],
        [
            ("D'où part la course que Karim prépare ?", [0]),
            ("Qu'a acheté le frère de Karim ?", [1]),
            ("Où dort le frère de Karim ?", [2]),
            ("Quelle plante de Karim a fleuri ?", [3]),
        ],
    ),
)

# Said between the stories, so that the first ten are not the whole conversation.
SMALL_TALK = (
    "Good morning, did you sleep well?",
    "Bonjour, bien dormi ?",
    "I have to run, talk later.",
    "Je dois filer, à plus tard.",
    "What shall we cook tonight?",
    "Qu'est-ce qu'on mange ce soir ?",
    "The dog next door barks all day.",
    "Le chat du voisin est revenu.",
    "My sister sends her love.",
    "Mon frère t'embrasse.",
    "The new office opens on Monday.",
    "Le bureau ferme à midi.",
    "Which course shall we take?",
    "La course du dimanche est annulée.",
    "A friend of mine fell ill.",
    "Une amie travaille trop.",
    "The car is at the garage.",
    "La femme du boulanger chante bien.",
    "The team meets at noon.",
    "Le professeur est en retard.",
)
