from test_training_invariance import *
def test_dev(world, tmp_path):
    for o in [*OBJECTIVES, "dpo_lora"]:
        base = run(world, o, tmp_path/f"{o}w", micro_batch_size=64)
        for m in (1,3,5):
            other = run(world, o, tmp_path/f"{o}{m}", micro_batch_size=m)
            dl = max(abs(a["loss"]-b["loss"]) for a,b in zip(base[0],other[0]))
            dg = max(abs(a["grad_norm"]/b["grad_norm"]-1) for a,b in zip(base[0],other[0]))
            dw = max(float((base[1][k]-other[1][k]).abs().max()) for k in base[1])
            mw = max(float((base[1][k]-other[1][k]).abs().mean()) for k in base[1])
            print(f"{o:18} {m} loss {dl:.1e} of {base[0][0]['loss']:.2f} grad {dg:.1e} of {base[0][0]['grad_norm']:.2f} w max {dw:.1e} mean {mw:.1e}")
