//! Which scenes are played where, and what came of them.

use super::cluster::Cluster;
use super::sabotage::{self, Sabotage};
use super::scene::Scene;
use super::scenes::SCENES;
use crate::vm::{Guest, kernel_has_ipip};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// What `cargo lab demo` was asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// Leave everything running and say how to enter it.
    pub keep: bool,
    /// Break one thing; its scene must fail.
    pub sabotage: Option<String>,
    /// Play only this scene.
    pub scene: Option<String>,
    /// We are in the guest: play everything here.
    pub inside_guest: bool,
}

/// A played scene.
struct Played {
    name: &'static str,
    outcome: Result<String>,
    took: Duration,
}

/// Where scenes that need IPIP are played.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Guest,
}

/// Plays the scenes; true if all passed.
///
/// # Errors
/// An unknown scene or sabotage, or the cluster can't be built.
pub fn run(options: &Options) -> Result<bool> {
    let sabotage = options.sabotage.as_deref().map(find_sabotage).transpose()?;
    let scenes = chosen(options.scene.as_deref())?;
    let place = place_of_ipip(options.inside_guest, &scenes)?;
    let mut played = Vec::new();
    let (here, away): (Vec<&Scene>, Vec<&Scene>) = scenes
        .into_iter()
        .partition(|scene| place == Place::Here || !scene.needs_ipip);
    if !here.is_empty() {
        let mut cluster = Cluster::start(ipip_mode(place), patience(options))?;
        for scene in here {
            let broken = sabotage.filter(|sabotage| sabotage.scene == scene.name);
            played.push(play_broken(&mut cluster, scene, broken));
        }
        if options.keep {
            keep(cluster)?;
        }
    }
    for scene in away {
        played.push(play_in_guest(scene, &["demo"], options.sabotage.as_deref()));
    }
    if !options.inside_guest {
        print_table(&played);
    }
    Ok(played.iter().all(|played| played.outcome.is_ok()))
}

/// Plays every scene broken, which must fail, and healed, which must pass; true if so.
///
/// # Errors
/// The cluster can't be built.
pub fn run_sabotages(options: &Options) -> Result<bool> {
    let scenes = chosen(options.scene.as_deref())?;
    let place = place_of_ipip(options.inside_guest, &scenes)?;
    let mut cluster = Cluster::start(ipip_mode(place), patience(options))?;
    let mut played = Vec::new();
    for scene in scenes {
        if place == Place::Guest && scene.needs_ipip {
            played.push(play_in_guest(scene, &["sabotages"], None));
            continue;
        }
        for sabotage in sabotage::ALL
            .iter()
            .filter(|sabotage| sabotage.scene == scene.name)
        {
            played.push(must_fail(&mut cluster, scene, sabotage, options)?);
        }
    }
    if !options.inside_guest {
        print_table(&played);
    }
    Ok(played.iter().all(|played| played.outcome.is_ok()))
}

fn must_fail(
    cluster: &mut Cluster,
    scene: &Scene,
    sabotage: &Sabotage,
    options: &Options,
) -> Result<Played> {
    cluster.patience = patience(options) / 4;
    let broken = play_broken(cluster, scene, Some(sabotage));
    cluster.patience = patience(options);
    let healed = play(cluster, scene);
    let outcome = match (broken.outcome, healed.outcome) {
        (Ok(saw), _) => Err(anyhow::anyhow!(
            "{}: the scene passed: {saw}",
            sabotage.name
        )),
        (Err(_), Err(error)) => Err(error.context(format!("{}: fails when healed", sabotage.name))),
        (Err(error), Ok(_)) => Ok(format!("{} was noticed: {error:#}", sabotage.name)),
    };
    Ok(Played {
        name: scene.name,
        outcome,
        took: broken.took + healed.took,
    })
}

fn play_broken(cluster: &mut Cluster, scene: &Scene, broken: Option<&Sabotage>) -> Played {
    let Some(sabotage) = broken else {
        return play(cluster, scene);
    };
    println!("\nsabotage `{}`: {}", sabotage.name, sabotage.what);
    // The scene must fail by this sabotage, so what it rests on stands before.
    let applied = cluster
        .ensure_pods()
        .and_then(|()| (sabotage.apply)(cluster));
    if let Err(error) = applied {
        // Not a failure of the scene, so it must not look like one that was provoked.
        let outcome = Ok(format!("the sabotage could not be applied: {error:#}"));
        return Played {
            name: scene.name,
            outcome,
            took: Duration::ZERO,
        };
    }
    let played = play(cluster, scene);
    if let Err(error) = (sabotage.undo)(cluster) {
        println!("  the sabotage could not be undone: {error:#}");
    }
    played
}

fn play(cluster: &mut Cluster, scene: &Scene) -> Played {
    println!("\n== {}: {}", scene.name, scene.title);
    let start = Instant::now();
    let outcome = (scene.play)(cluster);
    let took = start.elapsed();
    match &outcome {
        Ok(saw) => println!("  pass: {saw} ({:.1} s)", took.as_secs_f64()),
        Err(error) => println!("  FAIL: {error:#} ({:.1} s)", took.as_secs_f64()),
    }
    Played {
        name: scene.name,
        outcome,
        took,
    }
}

fn play_in_guest(scene: &Scene, command: &[&str], sabotage: Option<&str>) -> Played {
    let start = Instant::now();
    let outcome = guest_command(scene, command, sabotage)
        .and_then(|command| Guest::default().run(&command))
        .and_then(|status| match status {
            0 => Ok("in the guest".to_owned()),
            status => bail!("in the guest, exit status {status}"),
        });
    Played {
        name: scene.name,
        outcome,
        took: start.elapsed(),
    }
}

fn guest_command(scene: &Scene, command: &[&str], sabotage: Option<&str>) -> Result<Vec<String>> {
    let exe = std::env::current_exe().context("path of this program")?;
    let mut words = vec![exe.to_string_lossy().into_owned()];
    words.extend(command.iter().map(|&word| word.to_owned()));
    words.extend([
        "--inside-guest".to_owned(),
        "--scene".to_owned(),
        scene.name.to_owned(),
    ]);
    if let Some(sabotage) = sabotage {
        words.extend(["--sabotage".to_owned(), sabotage.to_owned()]);
    }
    Ok(words)
}

fn place_of_ipip(inside_guest: bool, scenes: &[&Scene]) -> Result<Place> {
    if inside_guest || kernel_has_ipip()? {
        return Ok(Place::Here);
    }
    if scenes.iter().any(|scene| scene.needs_ipip) {
        println!(
            "This kernel has no IPIP: scene `ipip` is played in a guest kernel, the others here with ipipMode: Never."
        );
    }
    Ok(Place::Guest)
}

fn ipip_mode(place: Place) -> &'static str {
    if place == Place::Here {
        "CrossSubnet"
    } else {
        "Never"
    }
}

fn patience(options: &Options) -> Duration {
    Duration::from_secs(if options.inside_guest { 120 } else { 40 })
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static Scene>> {
    let scenes: Vec<&Scene> = SCENES
        .iter()
        .filter(|scene| name.is_none_or(|name| name == scene.name))
        .collect();
    if scenes.is_empty() {
        let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
        bail!(
            "there is no scene {}; there are {}",
            name.unwrap_or_default(),
            names.join(", ")
        );
    }
    Ok(scenes)
}

fn find_sabotage(name: &str) -> Result<&'static Sabotage> {
    sabotage::ALL
        .iter()
        .find(|sabotage| sabotage.name == name)
        .with_context(|| {
            let names: Vec<&str> = sabotage::ALL.iter().map(|sabotage| sabotage.name).collect();
            format!(
                "there is no sabotage {name}; there are {}",
                names.join(", ")
            )
        })
}

fn keep(mut cluster: Cluster) -> Result<()> {
    cluster.lab.keep()?;
    let prefix = cluster.lab.prefix();
    println!(
        "\nThe lab stays. Its files: {dir}\n  ip netns list | grep {prefix}\n  \
         ip netns exec {prefix}n1 ip route\n  ip netns exec {prefix}n1 nft list table inet ocicat\n  \
         ip netns exec {prefix}tor1 vtysh --vty_socket {vty} -c 'show bgp summary'\n\
         `cargo lab clean` removes it.",
        dir = cluster.lab.dir().display(),
        vty = cluster.frr.vty_dir().display(),
    );
    cluster.lab.release();
    // Its processes would end with it.
    std::mem::forget(cluster);
    Ok(())
}

fn print_table(played: &[Played]) {
    println!("\n{:<10} {:<5} {:>7}  what was seen", "scene", "", "time");
    for played in played {
        let (verdict, saw) = match &played.outcome {
            Ok(saw) => ("pass", saw.clone()),
            Err(error) => (
                "FAIL",
                format!("{error:#}")
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ),
        };
        println!(
            "{:<10} {verdict:<5} {:>5.1} s  {saw}",
            played.name,
            played.took.as_secs_f64()
        );
    }
}
