"""How training data are made: raw logs become scenes, rationales, selected pairs, and a data card.

Where to find what, in the order in which a build (:mod:`~usermirror_gym.corpus.build`) goes:

========================  ========================================================================
settings                  ``config``
tables and scenes         ``scene_stage`` (the scenes themselves: :mod:`usermirror_gym.scenes`)
rationales of a source    ``rationale_stage``, from ``rationales/``:

                          - ``plan`` what is asked next; ``write`` asks an engine, and gives up on
                            a dead one; ``batch_files`` asks through files
                          - ``predictions`` the predictor's choice after each rationale
                          - ``journal`` the file that survives ``kill -9`` under all of them
                          - ``estimate`` tokens and time beforehand
selection                 ``selection/``: ``assessment`` hits, misses and the best pair, by
                          :mod:`usermirror_gym.measures.uncertainty`; ``select`` scores, strata and
                          quotas; ``ifd`` one score that asks a model
training files            ``preferences`` rows for TRL
audits                    ``audit`` runs ``checks/`` on leaks; ``checks/shortcuts``
data card                 ``card/``
a finished build          ``built`` reads it back
data sets of Wei et al.   ``released/`` reads them
========================  ========================================================================
"""
