//! `branch`: one flow into three, by what each record is.

use faceflow_core::{Flow, Time};
use timely::container::{CapacityContainerBuilder, ContainerBuilder};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// Which of three flows a record goes to.
pub enum Branched<A, B, C> {
    /// The first.
    A(A),
    /// The second.
    B(B),
    /// The third.
    C(C),
}

/// Splits a flow.
pub trait Branch<'s, D> {
    /// Sends each record to the flow that `choose` says, at its time.
    fn branch<A, B, C>(
        self,
        name: &str,
        choose: impl FnMut(D) -> Branched<A, B, C> + 'static,
    ) -> (Flow<'s, A>, Flow<'s, B>, Flow<'s, C>)
    where
        A: Clone + 'static,
        B: Clone + 'static,
        C: Clone + 'static;
}

impl<'s, D: Clone + 'static> Branch<'s, D> for Flow<'s, D> {
    fn branch<A, B, C>(
        self,
        name: &str,
        mut choose: impl FnMut(D) -> Branched<A, B, C> + 'static,
    ) -> (Flow<'s, A>, Flow<'s, B>, Flow<'s, C>)
    where
        A: Clone + 'static,
        B: Clone + 'static,
        C: Clone + 'static,
    {
        let mut builder = OperatorBuilder::new(name.to_owned(), self.scope());
        let mut input = builder.new_input(self, Pipeline);
        let (a, flow_a) = output(&mut builder);
        let (b, flow_b) = output(&mut builder);
        let (c, flow_c) = output(&mut builder);
        let (mut a, mut b, mut c) = (a, b, c);
        builder.build(move |_| {
            move |_| {
                let (mut a, mut b, mut c) = (a.activate(), b.activate(), c.activate());
                input.for_each_time(|time, data| {
                    let (mut a, mut b, mut c) = (a.session(&time), b.session(&time), c.session(&time));
                    for record in data.flat_map(|batch| batch.drain(..)) {
                        match choose(record) {
                            Branched::A(record) => a.give(record),
                            Branched::B(record) => b.give(record),
                            Branched::C(record) => c.give(record),
                        }
                    }
                });
            }
        });
        (flow_a, flow_b, flow_c)
    }
}

type Output<T> = OutputBuilder<Time, CapacityContainerBuilder<Vec<T>>>;

fn output<'s, T: Clone + 'static>(builder: &mut OperatorBuilder<'s, Time>) -> (Output<T>, Flow<'s, T>)
where
    CapacityContainerBuilder<Vec<T>>: ContainerBuilder<Container = Vec<T>>,
{
    let (output, flow) = builder.new_output();
    (OutputBuilder::from(output), flow)
}

#[cfg(test)]
mod tests {
    use timely::dataflow::operators::{Capture, Exchange, ToStream, capture::Extract};

    use super::*;

    #[test]
    fn every_record_goes_one_way_at_its_time() {
        let (a, b, c) = timely::example(|scope| {
            let numbers = (0..9_u64).to_stream(scope).container::<Vec<_>>().exchange(|n| *n);
            let (a, b, c) = numbers.branch("thirds", |n| match n % 3 {
                0 => Branched::A(n),
                1 => Branched::B(n.to_string()),
                _ => Branched::C(()),
            });
            (a.capture(), b.capture(), c.capture())
        });
        let values = |extracted: Vec<(u64, Vec<u64>)>| extracted.into_iter().flat_map(|(_, n)| n).collect::<Vec<_>>();
        assert_eq!(values(a.extract()), [0, 3, 6]);
        assert_eq!(b.extract(), [(0, vec!["1".to_owned(), "4".to_owned(), "7".to_owned()])]);
        assert_eq!(c.extract(), [(0, vec![(), (), ()])]);
    }
}
