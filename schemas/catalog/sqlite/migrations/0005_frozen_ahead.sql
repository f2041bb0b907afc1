-- Every archive commit asks whether a frozen file reaches into the present.
CREATE INDEX frozen_max_begin ON frozen(max_begin);
