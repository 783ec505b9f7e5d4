-- fails: 3:8+7: the column `carrier` is ambiguous
--  hint: say of which relation: `relation.carrier`
SELECT carrier FROM flights f JOIN airlines a ON a.carrier = f.carrier
