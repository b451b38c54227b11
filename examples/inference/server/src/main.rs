//! Program entry: settings, model, socket. Everything else is in the library.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd as _;
use std::process::ExitCode;
use std::time::Instant;

use inference::api::{App, classify};
use inference::config::{Config, Job, USAGE};
use inference::metrics::Metrics;
use inference::model::Classifier;
use inference::picture::Preparation;
use inference::{labels, server};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            eprintln!("inference: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let config = Config::read(std::env::args().skip(1), |name| std::env::var(name).ok())?;
    if config.job == Job::Help {
        println!("{USAGE}");
        return Ok(());
    }
    let mut app = load(&config)?;
    match config.job {
        Job::Help => Ok(()),
        Job::Classify(pictures) => pictures.iter().try_for_each(|file| {
            let picture = app.preparation.tensor(&fs::read(file)?)?;
            let began = Instant::now();
            let probabilities = app.model.classify(picture)?;
            let ms = began.elapsed().as_secs_f64() * 1000.0;
            let best = classify::best(&app.labels, &probabilities);
            let guesses: Vec<String> = best
                .iter()
                .map(|g| format!("{} {:.3}", g.label, g.p))
                .collect();
            println!("{}: {} ({ms:.2} ms)", file.display(), guesses.join(", "));
            Ok(())
        }),
        Job::ServeBound(address) => {
            let listener = TcpListener::bind(&address)
                .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            serve(&listener, &mut app)
        }
        #[expect(unsafe_code, reason = "how a listening socket is inherited")]
        // SAFETY: nothing else in this program uses descriptor 0 (standard input is never read), so
        // the listener is its only owner. If it is no socket, the first accept says so.
        Job::ServeInherited => serve(&unsafe { TcpListener::from_raw_fd(0) }, &mut app),
    }
}

fn load(config: &Config) -> Result<App, Failure> {
    let began = Instant::now();
    let model = Classifier::load(&config.model, config.size)?;
    let time = began.elapsed();
    let labels = labels::load(&config.labels, model.classes())?;
    let (fit, normalise) = (config.fit, config.normalise.clone());
    let preparation = Preparation::new(model.picture(), fit, normalise, config.max_pixels)?;
    println!(
        "model {} ({} parameters, {} classes) loaded in {:.1} ms; pictures: {preparation}",
        config.name,
        model.parameters(),
        model.classes(),
        time.as_secs_f64() * 1000.0
    );
    Ok(App {
        name: config.name.clone(),
        model,
        labels,
        preparation,
        metrics: Metrics::new(time),
    })
}

fn serve(listener: &TcpListener, app: &mut App) -> Result<(), Failure> {
    let mut log = io::stdout();
    writeln!(log, "serving {}", app.name)?;
    log.flush()?;
    Ok(server::serve(listener, app, &mut log)?)
}
