//! The vocabulary that every other module speaks: labels, matchers, samples, time, and the traits that part the query
//! engine from storage. Nothing here knows of files, actors or HTTP, and nothing of ours is imported.

pub mod alert;
pub mod append;
pub mod clock;
pub mod due;
pub mod duration;
pub mod exemplar;
pub mod external_url;
pub mod give_way;
pub mod go;
pub mod go_json;
pub mod go_math;
pub mod go_number;
pub mod go_time;
pub mod go_trig;
pub mod go_url;
pub mod histogram;
pub mod kahan;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod names;
pub mod random;
pub mod read;
pub mod regexp;
pub mod result;
pub mod sample;
pub mod secret;
pub mod spare;
pub mod steady_clock;
pub mod time;
pub mod wire;
