use raco::run::{Meter, memory};

#[test]
fn meters_run_forward() {
    let meter = Meter::start();
    let mut x = 1u64;
    while meter.wall_ms() < 30.0 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1);
    }
    assert!(x != 0 && meter.wall_ms() >= 30.0);
    if cfg!(target_os = "linux") {
        assert!(meter.cpu_ms().unwrap() > 0.0);
        let used = memory().unwrap();
        assert!(used.current_mib > 1.0 && used.peak_mib >= used.current_mib);
    }
}
