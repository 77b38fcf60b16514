//! scratch
use palmgate_palm::*;
use palmgate_protocol::{terminal::*, *};
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    s.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}
fn main() {
    let e = Extractor::load().ok().unwrap();
    let small = std::fs::read("crates/palm/data/hands/IMG_4322.JPG").unwrap();
    let big = {
        let h = image::load_from_memory(&small)
            .unwrap()
            .resize(480, 480, image::imageops::FilterType::CatmullRom)
            .to_rgb8();
        let mut p = image::RgbImage::from_pixel(640, 480, image::Rgb([180; 3]));
        image::imageops::overlay(&mut p, &h, 80, 0);
        let mut f = std::io::Cursor::new(vec![]);
        p.write_to(&mut f, image::ImageFormat::Jpeg).unwrap();
        f.into_inner()
    };
    let t = Transform::derive(&Secret::new([1; 32]), &"a".parse().unwrap(), Purpose::Pay);
    for (n, b) in [("100", small), ("640", big)] {
        let f = [Frame { band: Band::Visible, picture: Biometric::new(b) }];
        let mut v = vec![];
        let mut pr = vec![];
        for _ in 0..60 {
            let a = cpu();
            let c = e.capture(&f).unwrap();
            let m = cpu();
            v.push((m - a, c.steps));
            std::hint::black_box(t.probe(&c));
            pr.push(cpu() - m);
        }
        v.sort_by(|a, b| a.0.total_cmp(&b.0));
        pr.sort_by(f64::total_cmp);
        let p = |g: &dyn Fn(&Steps) -> std::time::Duration| {
            let mut w: Vec<_> = v.iter().map(|x| g(&x.1)).collect();
            w.sort();
            (w[3], w[30])
        };
        println!(
            "{n}: cpu ms p5 {:.1} p50 {:.1} p95 {:.1}; probe cpu {:.2} {:.2}; wall (p5,p50) decode {:?} detect {:?} lm {:?} region {:?} embed {:?} code {:?} total {:?}",
            v[3].0,
            v[30].0,
            v[57].0,
            pr[3],
            pr[30],
            p(&|s| s.decode),
            p(&|s| s.detect),
            p(&|s| s.landmarks),
            p(&|s| s.region),
            p(&|s| s.embed),
            p(&|s| s.code),
            p(&|s| s.total())
        );
    }
}
