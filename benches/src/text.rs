//! Text like natural language: words in the frequencies of Zipf's law, in sentences.
//! Invariant: it is drawn anew for every payload, so that no compressor gains from a repetition
//! that real traffic does not have.

/// Common words first: what stands at place n is drawn about 1/n as often as the first.
const WORDS: &str = "the of and to a in is it you that he was for on are with as his they be at \
one have this from or had by hot but some what there we can out other were all your when up use \
word how said an each she which do their time if will way about many then them would write like so \
these her long make thing see him two has look more day could go come did my sound no most number \
who over know water than call first people may down side been now find any new work part take get \
place made live where after back little only round man year came show every good me give our under \
name very through just form much great think say help low line before turn cause same mean differ \
move right boy old too does tell sentence set three want air well also play small end put home read \
hand port large spell add even land here must big high such follow act why ask men change went light \
kind off need house picture try us again animal point mother world near build self earth father head \
stand own page should country found answer school grow study still learn plant cover food sun four \
thought let keep eye never last door between city tree cross since hard start might story saw far \
sea draw left late run while press close night real life few stop open seem together next white \
children begin got walk example ease paper often always music those both mark book letter until mile \
river car feet care second group carry took rain eat room friend began idea fish mountain north once \
base hear horse cut sure watch color face wood main enough plain girl usual young ready above ever \
red list though feel talk bird soon body dog family direct pose leave song measure state product \
black short numeral class wind question happen complete ship area half rock order fire south problem \
piece told knew pass farm top whole king size heard best hour better true during hundred remember \
step early hold west ground interest reach fast five sing listen six table travel less morning \
simple several vowel toward war lay against pattern slow center love person money serve appear road \
map science rule govern pull cold notice voice fall power town fine certain fly unit lead cry dark \
machine note wait plan figure star box noun field rest correct able pound done beauty drive stood \
contain front teach week final gave green oh quick develop sleep warm free minute strong special \
mind behind clear tail produce fact street inch lot nothing course stay wheel full force blue object \
decide surface deep moon island foot yet busy test record boat common gold possible plane age dry \
wonder laugh thousand ago ran check game shape yes cool miss brought heat snow bed bring sit perhaps \
fill east weight language among refund invoice customer shipment delivery account subscription \
password address receipt warranty discount agent ticket schedule";

/// Draws words and sentences.
#[derive(Debug, Clone)]
pub struct Prose {
    words: Vec<&'static str>,
    /// Sums of the weights of the words up to each.
    sums: Vec<u32>,
    /// The first word of each [`STEP`] numbers that may be drawn: to search all words for each would
    /// take a bench longer than what it measures.
    starts: Vec<usize>,
}

/// Numbers that may be drawn, of one entry of `starts`.
const STEP: u32 = 4_096;

impl Default for Prose {
    fn default() -> Self {
        let words: Vec<&str> = WORDS.split_ascii_whitespace().collect();
        let weights = (1_u32..).map(|place| 1_000_000 / (place + 2));
        let sums = weights
            .take(words.len())
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect::<Vec<u32>>();
        let all = sums.last().copied().unwrap_or(1);
        let starts = (0..=all / STEP).map(|step| sums.partition_point(|sum| *sum <= step * STEP));
        Self { starts: starts.collect(), words, sums }
    }
}

impl Prose {
    /// A text of `bytes` bytes, give or take a word.
    pub fn text(&self, rng: &mut fastrand::Rng, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        let mut left_in_sentence = 0;
        while text.len() < bytes {
            let word = self.word(rng);
            if left_in_sentence == 0 {
                if !text.is_empty() {
                    text.push_str(if rng.u8(..6) == 0 { ".\n" } else { ". " });
                }
                left_in_sentence = rng.usize(5..22);
                text.push_str(&word[..1].to_ascii_uppercase());
                text.push_str(&word[1..]);
            } else {
                text.push_str(if rng.u8(..14) == 0 { ", " } else { " " });
                text.push_str(word);
                if rng.u8(..60) == 0 {
                    text.push_str(&format!(" {}", rng.u32(2..9_999)));
                }
            }
            left_in_sentence -= 1;
        }
        text.push('.');
        text
    }

    fn word(&self, rng: &mut fastrand::Rng) -> &'static str {
        let all = self.sums.last().copied().unwrap_or(1);
        let drawn = rng.u32(..all);
        let mut place = self.starts[(drawn / STEP) as usize];
        while self.sums[place] <= drawn {
            place += 1;
        }
        self.words[place]
    }
}
